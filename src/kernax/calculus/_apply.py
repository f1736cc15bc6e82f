"""`apply`: a kernel with linear operators on its arguments, as something that has matrices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import ParameterError, ShapeError
from .._module import Parameterised, Structure, flatten, prepared
from .._typing import ArrayLike, Mask, OtherPoints, Points
from ..kernels import AbstractKernel, _gram
from ..kernels._levels import over_levels
from . import _evaluate
from ._differential import Identity
from ._operators import LinearOperator


class AppliedKernel(Parameterised):
    """Covariances of what operators make of a process: made by `apply`.

    cov((left f)(x), (right f)(y)) = left_x right_y k(x, y)
    """

    kernel: AbstractKernel
    left: LinearOperator
    right: LinearOperator

    def gram(
        self,
        X: ArrayLike,
        X2: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        mask2: ArrayLike | None = None,
    ) -> Array:
        """(n, d) and (m, d) to (n p, m q), for p components of ``left`` and q of ``right``.

        Rows are point by point: row i p + j is component j at point i. A 1-D array is **n points
        of dimension one**; ``X2=None`` means X. White noise is left out. A row of points with a
        NaN gives NaN; with ``mask`` (True = real) padding gives rows of zeros, and with one
        operator on both sides and no X2 those of the identity. A batch of kernels leads.
        """
        return _call(self, X, X2, mask, mask2)

    def diagonal(self, X: ArrayLike) -> Array:
        """The variances of each component at each point, (n p,): of one operator on both sides."""
        if not same_operator(self.left, self.right):
            raise ParameterError(
                f"`diagonal` is of one operator on both sides, not of `{self.left!r}` and "
                f"`{self.right!r}`. Fix: use apply(kernel, L, L)."
            )
        structure, leaves = flatten(self)
        points, _, finite = _on_device(self, X, None)
        return _diagonal(structure, finite, leaves, points)

    def pairwise(self, x: Array, y: Array) -> Array:
        """One pair of points (d,), (d,): (), or (p, q) where there are several components."""
        values: Array = _evaluate.blocks(self.kernel, self.left, self.right, x[None], y[None])
        values = values[0, :, 0, :]
        return values[0, 0] if values.shape == (1, 1) else values

    def matrix(self, X: Points, Y: OtherPoints) -> Array:
        """`gram` of clean points inside compiled code, (n p, m q)."""
        return _evaluate.flat(_evaluate.blocks(self.kernel, self.left, self.right, X, Y))

    def __repr__(self) -> str:
        return f"apply({self.kernel!r}, {self.left!r}, {self.right!r})"


def apply(kernel: Any, left: Any = None, right: Any = None) -> AppliedKernel:
    """The covariances of ``left`` of a process with ``right`` of it, for any kernel.

    An operator left out is `Identity`. ``apply(k, Gradient(), Gradient()).gram(X)`` is the joint
    covariance of all slopes, ``apply(k, right=Integral(0.0, 1.0)).gram(X, X2)`` that of values with
    integrals. Operators act at the same rows as in `gram`: what they have per row belongs to the
    rows of X on the left and of X2 on the right.

    Raises `ParameterError` where the process is not often enough mean-square differentiable, naming
    the part, and for kernels of categories or sets; `ShapeError` for a dimension that is not there.
    """
    if not isinstance(kernel, AbstractKernel):
        raise ParameterError(
            f"`kernel` is {kernel!r}, expected a kernel. Fix: pass for instance SEKernel()."
        )
    left = Identity() if left is None else as_operator(left, "left")
    right = Identity() if right is None else as_operator(right, "right")
    return AppliedKernel(kernel, left, right)


def as_operator(value: Any, name: str) -> LinearOperator:
    """An operator; `ParameterError` for what is none."""
    if not isinstance(value, LinearOperator):
        what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise ParameterError(
            f"`{name}` is {what}, expected a linear operator. Fix: pass for instance Gradient()."
        )
    return value


def same_operator(left: LinearOperator, right: LinearOperator) -> bool:
    """Whether two operators are known to be one."""
    leaves = (*flatten(left)[1], *flatten(right)[1])
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return left is right or (not traced and left.equals(right))


def _call(applied: AppliedKernel, X: Any, X2: Any, mask: Any, mask2: Any) -> Array:
    if mask2 is not None and X2 is None:
        raise ShapeError("`mask2` was given without `X2`. Fix: use `mask` for the rows of X.")
    mask, mask2 = (m if m is None else jnp.asarray(m) for m in (mask, mask2))
    X = _inputs.without_filler(X, mask, "X")
    X2 = None if X2 is None else _inputs.without_filler(X2, mask2, "X2")
    structure, leaves = flatten(applied)
    first, second, finite = _on_device(applied, X, X2)
    same = X2 is None and same_operator(applied.left, applied.right)
    return _matrix(structure, finite, same, leaves, first, second, mask, mask2)


def _on_device(applied: AppliedKernel, X: Any, X2: Any) -> Any:
    # Only what is the same everywhere may be shifted with its points.
    moves = applied.left.invariant and applied.right.invariant
    return _gram.on_device(applied.kernel, X, X2, ("X", "X2"), shifts=moves)


@partial(jax.jit, static_argnames=("structure", "finite", "same"), inline=True)
def _matrix(
    structure: Structure, finite: bool, same: bool, leaves: tuple[Array, ...],
    X: Array, X2: Array | None, mask: Array | None, mask2: Array | None,
) -> Array:  # fmt: skip
    applied, dtype, X, X2 = _gram.ready(structure, leaves, X, X2, ("X", "X2"))
    left, right = (cast(operator, dtype) for operator in (applied.left, applied.right))
    masked = mask is not None or mask2 is not None

    def one(kernel: Any, X: Points, Y: OtherPoints, mask: Mask | None, mask2: Mask | None) -> Array:
        for operator, points, name in ((left, X, "X"), (right, Y, "X" if X2 is None else "X2")):
            _evaluate.check_rows(operator, len(points), name)
        kernel = prepared(kernel, dtype)
        if finite and not masked:
            return _evaluate.flat(_evaluate.blocks(kernel, left, right, X, Y))
        (X, real1), (Y, real2) = _padding.clean(X, mask), _padding.clean(Y, mask2)
        K = _evaluate.blocks(kernel, left, right, X, Y)
        real = real1[:, None, None, None] & real2[None, None, :, None]
        if not masked:
            return _evaluate.flat(jnp.where(real, K, jnp.nan))
        K = _evaluate.flat(jnp.where(real, K, 0.0))
        if not same:
            return K
        rows = jnp.repeat(real1, left.components(X.shape[1]))
        return K + jnp.diag(jnp.where(rows, 0.0, 1.0).astype(dtype))

    first = _gram.columns(X, "X")._replace(mask=mask)
    second = first if X2 is None else _gram.columns(X2, "X2")._replace(mask=mask2)
    return over_levels(one, applied.kernel, first, second)


@partial(jax.jit, static_argnames=("structure", "finite"), inline=True)
def _diagonal(structure: Structure, finite: bool, leaves: tuple[Array, ...], X: Array) -> Array:
    applied, dtype, X, _ = _gram.ready(structure, leaves, X, None, ("X", "X2"))
    operator = cast(applied.left, dtype)

    def one(kernel: Any, X: Points, _: None) -> Array:
        _evaluate.check_rows(operator, len(X), "X")
        points = X if finite else _padding.clean(X, None)[0]
        values = _evaluate.variances(prepared(kernel, dtype), operator, points)
        if not finite:
            values = jnp.where(jnp.isfinite(X).all(axis=-1)[:, None], values, jnp.nan)
        return values.reshape(-1)

    return over_levels(one, applied.kernel, _gram.columns(X, "X"))


def cast(operator: LinearOperator, dtype: Any) -> LinearOperator:
    """The operator with all its numbers in one dtype."""
    result: LinearOperator = prepared(operator, dtype)
    return result
