"""Derivatives of a matrix over all pairs as products of thin matrices.

Where the derivative of a pair is a short sum of (a number of x) times (a number of y), that of the
whole matrix is a product of a few columns. Its transpose, which pulls a cotangent back to the
hyperparameters, is a product too: no pass over the pairs for each of them. Expanding a pair into
such a sum may cancel digits, so each rule is used only where that is known to be harmless.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from .._typing import Matrix


def thin_rule(
    value: Callable[..., Array],
    plain: Callable[..., Array],
    products: Callable[..., Array],
    reach: Callable[..., Array],
) -> Callable[[Any, Any], Any]:
    """A rule for `jax.custom_jvp` of ``value``, with symbolic zeros.

    ``products(*primals, *tangents)`` is the derivative by thin products, where a tangent that is
    zero is None. It is taken where ``reach(*primals)``, the factor by which errors of rounding
    grow in it, leaves half of the digits; elsewhere, and in batches, the derivative is that of
    ``plain``.
    """

    def rule(primals: Any, tangents: Any) -> Any:
        moving = tuple(not isinstance(tangent, SymbolicZero) for tangent in tangents)
        given = tuple(tangent for tangent, moves in zip(tangents, moving, strict=True) if moves)

        def by_differences(primals: Any, given: Any) -> Matrix:
            free = [value for value, moves in zip(primals, moving, strict=True) if moves]

            def matrix(*free: Array) -> Matrix:
                changed = iter(free)
                pairs = zip(primals, moving, strict=True)
                return plain(*(next(changed) if moves else old for old, moves in pairs))

            tangent: Matrix = jax.jvp(matrix, free, list(given))[1]
            return tangent

        def by_products(primals: Any, given: Any) -> Matrix:
            changes = iter(given)
            return products(*primals, *(next(changes) if moves else None for moves in moving))

        near = _of_one(reach(*primals) < jnp.finfo(primals[0].dtype).eps ** -0.5)
        # Without checkpoints the branch not taken would fill its residuals with zeros.
        branches = jax.checkpoint(by_products), jax.checkpoint(by_differences)
        tangent = jax.lax.cond(near, *branches, primals, given)
        return value(*primals), tangent

    return rule


@jax.custom_batching.custom_vmap
def _of_one(condition: Array) -> Array:
    """The condition, which is False in a batch: one element must not decide for another, and a
    decision for each would compute both branches, of which JAX could not transpose the choice."""
    return condition


@_of_one.def_vmap
def _(_size: int, _batched: Any, condition: Array) -> tuple[Array, bool]:
    return jnp.zeros((), condition.dtype), False


def columns(*parts: Array) -> Array:
    """Thin matrices side by side."""
    return jnp.concatenate(parts, axis=1)


def row_sums(A: Array) -> Array:
    """The sum of each row, as a column."""
    return jnp.sum(A, axis=1, keepdims=True)


def thin_product(A: Array, B: Array) -> Array:
    """A B' of thin matrices (n, k) and (m, k)."""
    return jnp.matmul(A, B.T, precision="highest")
