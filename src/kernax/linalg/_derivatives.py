"""The derivatives of a factorisation, of any order and in both modes.

With a = K^-1 y and P = K^-1, which are all that derivatives of a likelihood are made of:

    d log(det K) / 2 = tr(P dK) / 2         da = P (dy - dK a)
    d y' K^-1 y = 2 a' dy - a' dK a         dP = -P dK P

They are those of the operation itself, and in terms of it: where a loop or a checkpoint makes JAX
take a program apart, they stay. Jitter is a constant. Of the factor L they are
dL = L Phi(L^-1 dK L^-T), Phi: the lower triangle with half its diagonal (Murray, 2016, arXiv
1602.07527).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad
from jaxtyping import Array

from . import _portable
from ._primitive import factorise_p, outer, slope


def _rule(primals: Any, tangents: Any, *, wanted: str, route: str) -> Any:
    """Operands and results have batch axes in front, as `_primitive` has them."""
    known = lambda t: None if type(t) is ad.Zero else t
    dK, *dys = (known(tangents[i]) for i in range(len(tangents)) if i != 1)
    if wanted == "factor":
        L, c = factorise_p.bind(*primals, wanted=wanted, route=route)
        dL = _zero(L) if dK is None else _of_factor(L, dK)
        return [L, c], [dL, _zero(c)]
    results = factorise_p.bind(*primals, wanted="inverse", route=route)
    tangents = _of_solution(results, dK, dys[0])
    if wanted == "slopes":
        results, tangents = _of_slopes(results, tangents)
    count = 3 if wanted == "density" else 5
    return results[:count], [
        _zero(result) if tangent is None else tangent
        for result, tangent in zip(results[:count], tangents[:count], strict=True)
    ]


ad.primitive_jvps[factorise_p] = _rule


def _zero(result: Array) -> Any:
    return ad.Zero(jax.typeof(result).to_tangent_aval())


def _of_factor(L: Array, dK: Array) -> Array:
    inner = _portable.solve(L, _portable.solve(L, dK).mT)
    eye = jnp.eye(L.shape[-1], dtype=L.dtype)
    return _dot(L, jnp.tril(inner) - 0.5 * inner * jnp.broadcast_to(eye, inner.shape))


def _of_solution(results: Any, dK: Array | None, dy: Array | None) -> list[Array | None]:
    """The tangents of log(det K) / 2, y' K^-1 y, c, a and P: None where they are zero."""
    *_, a, P = results
    if dK is None:
        if dy is None:
            return [None] * 5
        return [None, 2.0 * jnp.sum(a * dy, axis=-1), None, _times(P, dy), None]
    half_log_det = 0.5 * jnp.sum(P * dK, axis=(-2, -1))
    if a.shape[:-1] == dK.shape[:-2]:
        # Entry by entry, so that reverse mode makes one pass of this and of the line above.
        square = -jnp.sum(a[..., :, None] * a[..., None, :] * dK, axis=(-2, -1))
    else:
        square = -jnp.sum(a * _times(dK, a), axis=-1)
    change = -_times(dK, a)
    if dy is not None:
        square = square + 2.0 * jnp.sum(a * dy, axis=-1)
        change = change + dy
    return [half_log_det, square, None, _times(P, change), -_dot(P, _dot(dK, P))]


def _of_slopes(results: Any, tangents: Any) -> tuple[list[Array], list[Array | None]]:
    """Results and tangents with W = (sum of a a' - m P) / 2 in the place of P."""
    *others, a, P = results
    *of_others, da, dP = tangents
    dW = None
    if da is not None:
        both = outer(da, a)
        dW = 0.5 * (both + both.mT - (0.0 if dP is None else a.shape[-2] * dP))
    return [*others, a, slope(a, P)], [*of_others, da, dW]


def _times(A: Array, x: Array) -> Array:
    """A x for matrices (*b, n, n) and vectors (*b, n), of which either may lack a batch axis."""
    return _dot(A, x[..., None])[..., 0]


_dot: Callable[[Array, Array], Array] = lambda A, B: jnp.matmul(A, B, precision="highest")
