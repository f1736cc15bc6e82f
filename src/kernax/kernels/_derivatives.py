"""First and second derivatives of a kernel in its points, for all pairs of two sets."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _padding
from .._errors import ParameterError
from .._module import Structure, flatten, prepared
from .._typing import OtherPoints, Points
from . import _gram
from ._jets import Grid, jet
from ._levels import over_levels
from ._smoothness import check_smoothness

if TYPE_CHECKING:
    from ._base import AbstractKernel


def gradient(kernel: "AbstractKernel", X1: Any, X2: Any, argument: Any) -> Array:
    return _evaluate(kernel, X1, X2, (_checked(argument),))


def hessian(kernel: "AbstractKernel", X1: Any, X2: Any, argument: Any) -> Array:
    return _evaluate(kernel, X1, X2, (_checked(argument),) * 2, "`hessian`")


def mixed_hessian(kernel: "AbstractKernel", X1: Any, X2: Any) -> Array:
    return _evaluate(kernel, X1, X2, (0, 1), "`mixed_hessian`")


def _checked(argument: Any) -> int:
    if isinstance(argument, bool) or argument not in (0, 1):
        raise ParameterError(
            f"`argument` is {argument!r}, expected 0 (the first point) or 1 (the second). "
            "Fix: pass one of these."
        )
    return int(argument)


def _evaluate(
    kernel: "AbstractKernel", X1: Any, X2: Any, slots: tuple[int, ...], what: str = ""
) -> Array:
    structure, leaves = flatten(kernel)
    X1, X2, finite = _gram.on_device(kernel, X1, X2, ("X1", "X2"))
    return _derivatives(structure, finite, slots, what, leaves, X1, X2)


@partial(jax.jit, static_argnames=("structure", "finite", "slots", "what"), inline=True)
def _derivatives(
    structure: Structure,
    finite: bool,
    slots: tuple[int, ...],
    what: str,
    leaves: tuple[Array, ...],
    X: Array,
    X2: Array | None,
) -> Array:
    """(n, m, d) for one slot, (n, m, d, d) for two; NaN where there is padding."""
    kernel, dtype, X, X2 = _gram.ready(structure, leaves, X, X2, ("X1", "X2"))
    letters = "AB"[: len(slots)]

    def on_sets(kernel: Any, X: Points, Y: OtherPoints, *_: None) -> Array:
        d = X.shape[1]
        if len(slots) == 2:
            # Wherever the two are taken, each part of the kernel must have them.
            for j in range(d):
                check_smoothness(kernel, tuple(2 * int(i == j) for i in range(d)), what)
        first, second = (X, Y) if finite else (_unfused(X), _unfused(Y))
        found = jet(prepared(kernel, dtype), Grid(first, second, "nm" + letters, slots))
        shape = (len(X), len(Y), *(d,) * len(slots))
        part = found.a if len(slots) == 1 else found.ab
        values = jnp.zeros(shape, dtype) if part is None else jnp.broadcast_to(part, shape)
        if finite:
            return values
        rows, columns = (jnp.isfinite(points).all(axis=-1) for points in (X, Y))
        both = jnp.expand_dims(rows[:, None] & columns[None, :], range(2, len(shape)))
        return jnp.where(both, values, jnp.nan)

    first = _gram.columns(X, "X1")
    second = first if X2 is None else _gram.columns(X2, "X2")
    return over_levels(on_sets, kernel, first, second)


def _unfused(X: Points) -> Points:
    """Clean points, by a product that XLA does not repeat for each pair."""
    X = _padding.clean(X, None)[0]
    return jnp.matmul(X, jnp.eye(X.shape[1], dtype=X.dtype), precision="highest")
