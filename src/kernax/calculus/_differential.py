"""Operators that differentiate, and the one that does nothing."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError, ShapeError
from .._inputs import as_whole
from .._module import short
from .._parameters import real
from .._typing import Parameter
from ._operators import Field, LinearOperator, Term, slope


class Identity(LinearOperator):
    """The function itself: values."""

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return f(x)

    def components(self, d: int) -> int:
        return 1

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        return ((Term((), (0,) * d),),)

    def __repr__(self) -> str:
        return "Identity()"


class Derivative(LinearOperator):
    """The derivative of some order along one dimension, d^order f / dx_dim^order.

    ``dim`` counts from 0, or from the end where negative; `ShapeError` where the points do not
    have it. ``order`` >= 1, else `ParameterError`.
    """

    dim: int = eqx.field(static=True, default=0, converter=lambda value: as_whole(value, "dim"))
    order: int = eqx.field(static=True, default=1, converter=lambda value: _as_order(value))

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        unit = jnp.zeros_like(x).at[self.dim].set(1.0)
        for _ in range(self.order):
            f = slope(f, unit)
        return f(x)

    def components(self, d: int) -> int:
        check_dim(self.dim, d, self)
        return 1

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        check_dim(self.dim, d, self)
        acts = [0] * d
        acts[self.dim] = self.order
        return ((Term((), tuple(acts)),),)

    def __repr__(self) -> str:
        return f"Derivative({self.dim}{f', order={self.order}' if self.order > 1 else ''})"


class Gradient(LinearOperator):
    """All first derivatives at a point: d components, in the order of the dimensions."""

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return jax.jacfwd(f)(x).reshape(-1)

    def components(self, d: int) -> int:
        return d

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        return tuple((Term((), _unit(j, d)),) for j in range(d))

    def __repr__(self) -> str:
        return "Gradient()"


class Laplacian(LinearOperator):
    """The sum of the second derivatives along all dimensions."""

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        second = lambda unit: slope(slope(f, unit), unit)(x)
        return jnp.sum(jax.vmap(second)(jnp.eye(x.shape[0], dtype=x.dtype)), axis=0)

    def components(self, d: int) -> int:
        return 1

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        return (tuple(Term((), _unit(j, d, 2)) for j in range(d)),)

    def __repr__(self) -> str:
        return "Laplacian()"


class DirectionalDerivative(LinearOperator):
    """The slope along a direction, sum_j direction_j df / dx_j; the direction is not normalised.

    ``direction``: (d,), or one per row (n, d).
    """

    direction: Parameter = real()

    def __check_init__(self) -> None:
        if np.ndim(self.direction) not in (1, 2):
            raise ShapeError(
                f"`direction` has shape {np.shape(self.direction)}, expected (d,), or (n, d) for "
                "one per row. Fix: pass a vector."
            )

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return slope(f, self.direction.astype(x.dtype))(x)

    def components(self, d: int) -> int:
        if self.direction.shape[-1] != d:
            raise ShapeError(
                f"`direction` has shape {self.direction.shape}, but the points have dimension {d}. "
                "Fix: pass one number per dimension."
            )
        return 1

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        self.components(d)
        return (tuple(Term((self.direction[..., j],), _unit(j, d)) for j in range(d)),)

    def row(self, i: Any) -> LinearOperator:
        return self if self.direction.ndim == 1 else self.changed(direction=self.direction[i])

    def own_rows(self) -> tuple[int, ...]:
        return () if self.direction.ndim == 1 else (int(self.direction.shape[0]),)

    def __repr__(self) -> str:
        return f"DirectionalDerivative({short(self.direction)})"


def _unit(j: int, d: int, order: int = 1) -> tuple[int, ...]:
    return tuple(order * int(i == j) for i in range(d))


def _as_order(value: Any) -> int:
    order = as_whole(value, "order")
    if order < 1:
        raise ParameterError(
            f"`order` is {order}, expected a whole number >= 1. Fix: pass 1 for a first "
            "derivative, or use Identity() for none."
        )
    return order


def check_dim(dim: int, d: int, what: Any) -> None:
    """`ShapeError` unless points of dimension d have that dimension."""
    if not -d <= dim < d:
        raise ShapeError(
            f"`{what!r}` acts on dimension {dim}, but the points have dimension {d}. "
            f"Fix: use dimensions from {-d} to {d - 1}."
        )
