"""What a solver asks of a covariance matrix that is never formed."""

import abc
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import MissingExtraError, ShapeError
from .._memory import check_memory
from .._module import Structure, flatten
from .._typing import ArrayLike

# Matrices that are there when one is made of products with the identity, whose rows may have to be
# filled up to whole tiles.
COPIES = 4.3


class CovarianceOperator(eqx.Module):
    """A symmetric positive semi-definite matrix, known by what it makes of vectors.

    ``operator @ V`` is the product with a vector (n,) or with s of them (n, s), eagerly or inside
    compiled code, and differentiable in all that the operator holds. A subclass says `size`,
    `dtype`, `product`, `diagonal` and `columns`; everything else follows.
    """

    __slots__ = ("_flat",)
    __getattribute__ = object.__getattribute__

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """n, the number of rows."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """The floating dtype of its numbers."""

    @abc.abstractmethod
    def product(self, V: Array) -> Array:
        """The product with the columns of V (n, s), inside compiled code."""

    @abc.abstractmethod
    def diagonal(self) -> Array:
        """The diagonal, (n,)."""

    @abc.abstractmethod
    def columns(self, index: Array) -> Array:
        """The columns of those numbers, (n, b)."""

    def noise(self) -> Array:
        """The part of the diagonal that is noise, (n,): what a preconditioner leaves as it is."""
        return jnp.zeros(self.size, self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.size, self.size

    def __matmul__(self, V: ArrayLike) -> Array:
        return self.times(V)

    def times(self, V: ArrayLike) -> Array:
        """``operator @ V``: with one vector (n,), or the columns of V (n, s)."""
        V = jnp.asarray(V)
        if V.ndim not in (1, 2) or V.shape[0] != self.size:
            raise ShapeError(
                f"the operator is {self.size} x {self.size}, and what it is multiplied with has "
                f"shape {V.shape}, expected ({self.size},) or ({self.size}, s). "
                "Fix: pass one row per point."
            )
        structure, leaves = flatten(self)
        return _product(structure, leaves, V.astype(self.dtype))

    def bilinear(self, A: ArrayLike, B: ArrayLike) -> Array:
        """sum_s a_s' K b_s over the columns of A and B (n, s): with a gradient in all that the
        operator holds, in O(n (d + s)) memory."""
        A, B = (jnp.asarray(v).astype(self.dtype) for v in (A, B))
        if A.shape != B.shape or A.shape[:1] != (self.size,):
            raise ShapeError(
                f"`A` has shape {A.shape} and `B` {B.shape}, expected one shape ({self.size},) or "
                f"({self.size}, s). Fix: pass as many columns of both."
            )
        return jnp.sum(A * self.times(B))

    def dense(self) -> Array:
        """The matrix itself, (n, n); `ResourceError` where it does not fit."""
        need = int(COPIES * self.size**2 * np.dtype(self.dtype).itemsize)
        check_memory("the matrix with what it is made of", need)
        return self.times(jnp.eye(self.size, dtype=self.dtype))

    def as_lineax(self) -> Any:
        """The same as an operator of lineax, symmetric and positive semi-definite."""
        try:
            import lineax
        except ImportError as error:
            raise MissingExtraError("`as_lineax`", "lineax", "scale") from error
        form = jax.ShapeDtypeStruct((self.size,), self.dtype)
        tags = (lineax.symmetric_tag, lineax.positive_semidefinite_tag)
        return lineax.FunctionLinearOperator(self.times, form, tags)


@partial(jax.jit, static_argnames=("structure",), inline=True)
def _product(structure: Structure, leaves: tuple[Array, ...], V: Array) -> Array:
    operator = structure.rebuild(leaves)
    columns = V if V.ndim == 2 else V[:, None]
    P: Array = operator.product(columns)
    return P if V.ndim == 2 else P[:, 0]
