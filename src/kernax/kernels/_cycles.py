"""Phases of plane waves in cycles, whole cycles taken off before they cost digits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ShapeError


@jax.custom_jvp
def cycles(x: Array, frequency: Array) -> Array:
    """x * frequency up to whole numbers, elementwise, right to the last bits of 1.

    The product itself would lose as many digits as it has before the point. Half of the digits of
    each factor are split off, so that the partial products are exact.
    """
    x1, f1 = _leading_half(x), _leading_half(frequency)
    x2, f2 = x - x1, frequency - f1
    return fraction(x1 * f1) + fraction(x1 * f2) + fraction(x2 * f1) + fraction(x2 * f2)


@cycles.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    (x, frequency), (dx, dfrequency) = primals, tangents
    return cycles(x, frequency), dx * frequency + x * dfrequency


@jax.custom_jvp
def fraction(count: Array) -> Array:
    """What is left of ``count``, up to 1/2 from the nearest whole number."""
    largest = jnp.asarray(jnp.finfo(count.dtype).max, count.dtype)
    count = jnp.clip(count, -largest, largest)
    return count - jnp.round(count)


@fraction.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    return fraction(*primals), tangents[0]


def total(count: Array) -> Array:
    """The sum over the last axis up to whole numbers, by halves: no partial sum is large."""
    while (d := count.shape[-1]) > 1:
        half = d // 2
        pairs = fraction(count[..., :half] + count[..., half : 2 * half])
        count = jnp.concatenate([pairs, count[..., 2 * half :]], axis=-1)
    return count[..., 0]


def wave(count: Array) -> Array:
    """cos(2 pi count), for a number of cycles of any size."""
    return 1.0 - 2.0 * jnp.square(sine(fraction(count)))


def both_waves(count: Array) -> tuple[Array, Array]:
    """cos and sin of 2 pi count."""
    half = fraction(count)
    sin, cos = sine(half), cosine(half)
    return 1.0 - 2.0 * jnp.square(sin), 2.0 * sin * cos


@jax.custom_jvp
def sine(half: Array) -> Array:
    """sin(pi half) for half from -1/2 to 1/2, to the last bit.

    XLA has no sine of several numbers at once on CPUs: its own takes three times as long.
    """
    return half * _series(half, 1)


@jax.custom_jvp
def cosine(half: Array) -> Array:
    """cos(pi half) for half from -1/2 to 1/2, to the last bit of 1."""
    return _series(half, 0)


@sine.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    return sine(*primals), math.pi * cosine(*primals) * tangents[0]


@cosine.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    return cosine(*primals), -math.pi * sine(*primals) * tangents[0]


def _series(half: Array, order: int) -> Array:
    """sum_k (-1)^k pi^(2 k + order) half^(2 k) / (2 k + order)!, as far as it counts at 1/2."""
    count = 12 if jnp.finfo(half.dtype).bits == 64 else 7
    powers = range(order, order + 2 * count, 2)
    terms = [(-1) ** (n // 2) * math.pi**n / math.factorial(n) for n in powers]
    square, total = jnp.square(half), jnp.full_like(half, terms.pop())
    for term in reversed(terms):
        total = total * square + term
    return total


def differences(x: Array, y: Array) -> Array:
    """x - y of two numbers, or of all pairs of two vectors."""
    return x - y if x.ndim == 0 else x[:, None] - y[None, :]


def check_same_dimension(x: Array, y: Array) -> None:
    """`ShapeError` unless both points, or sets of points, have the same dimension."""
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(
            f"`x1` has dimension {x.shape[-1]} and `x2` has dimension {y.shape[-1]}, expected the "
            "same. Fix: pass points with the same number of columns."
        )


def _leading_half(x: Array) -> Array:
    """x with the lower half of its digits set to 0."""
    info = jnp.finfo(x.dtype)
    integer = jnp.dtype(f"int{info.bits}")
    digits = (info.nmant + 2) // 2
    keep = jnp.asarray(np.asarray(-1).astype(integer) << digits, integer)
    bits = jax.lax.bitcast_convert_type(x, integer)
    return jax.lax.bitcast_convert_type(bits & keep, x.dtype)
