"""Gibbs' kernel: a squared exponential whose length-scale is a function of the place."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ShapeError
from .._parameters import Positive, guard
from .._typing import Matrix, OtherPointOrPoints, OtherPoints, Point, PointOrPoints, Points, Scalar
from ._base import AbstractKernel
from ._distance import inverse_power_of_two
from ._maps import as_map, evaluate
from ._pairs import MOST_UNROLLED, in_one_dtype, pair_sum

_NAME = "length_scale_function"


class GibbsKernel(AbstractKernel):
    """A squared exponential with a length-scale l(x) that varies over the inputs.

    k(x, y) = prod_j sqrt(2 l_j(x) l_j(y) / (l_j(x)^2 + l_j(y)^2))
    exp(-sum_j (x_j - y_j)^2 / (l_j(x)^2 + l_j(y)^2))

    ``length_scale_function`` maps a point (d,) to one length-scale > 0, which is then that of
    every dimension, or to (d,), one per dimension: a module with hyperparameters of its own, such
    as `kernax.transforms.LogLinear`, or a plain function. A constant one gives `SEKernel`. In a
    matrix it is evaluated once per point. k(x, x) = 1. Where it is not finite and > 0 the
    covariances are NaN; for another shape it raises `ShapeError`. Infinitely differentiable,
    where the function is.

    Gibbs (1997), Bayesian Gaussian processes for regression and classification, section 3.10.3;
    Rasmussen and Williams (2006), equation 4.32.
    """

    length_scale_function: Any = eqx.field(converter=lambda value: as_map(value, _NAME))

    def __check_init__(self) -> None:
        as_map(self.length_scale_function, _NAME)  # what comes from a file met no converter

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The formula, for points and for sets of points alike."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        a = self._length_scale(x)
        b = a if y is x else self._length_scale(y)
        x, y, a, b = in_one_dtype(x, y, a, b)
        return (_isotropic if a.ndim < x.ndim else _per_dimension)(x, y, a, b)

    def _length_scale(self, x: Array) -> Array:
        values = evaluate(self.length_scale_function, x, _NAME)
        own = values.shape[x.ndim - 1 :]
        if own not in ((), x.shape[-1:]):
            raise ShapeError(
                f"`{_NAME}` returned shape {own} for a point of shape {x.shape[-1:]}, expected () "
                f"or {x.shape[-1:]}. Fix: return one length-scale, or one per dimension."
            )
        return guard(values, Positive())


def _isotropic(x: Array, y: Array, a: Array, b: Array) -> Array:
    if x.ndim == 2:
        a, b = a[:, None], b[None, :]
    unit, total, ratio = _of_pairs(a, b)

    def term(u: Array, v: Array) -> Array:
        difference = u - v
        return _square(difference, unit if difference.ndim == unit.ndim else unit[..., None])

    d = x.shape[-1]
    factor = jax.lax.integer_pow(ratio, d // 2)
    factor = factor * jnp.sqrt(ratio) if d % 2 else factor
    return factor * jnp.exp(-pair_sum(term, x, y) / total)


def _per_dimension(x: Array, y: Array, a: Array, b: Array) -> Array:
    if x.shape[-1] > MOST_UNROLLED:
        # Two sums of one pass; a product of all dimensions might vanish on the way.
        if x.ndim == 2:
            x, y, a, b = x[:, None, :], y[None, :, :], a[:, None, :], b[None, :, :]
        unit, total, ratio = _of_pairs(a, b)
        return jnp.exp(jnp.sum(0.5 * jnp.log(ratio) - _square(x - y, unit) / total, axis=-1))
    factors, exponents = [], []
    for j in range(x.shape[-1]):
        (u, p), (v, q) = _rows(j, x, a), _columns(j, y, b)
        unit, total, ratio = _of_pairs(p, q)
        factors.append(jnp.sqrt(ratio))
        exponents.append(_square(u - v, unit) / total)
    return functools.reduce(jnp.multiply, factors) * jnp.exp(-functools.reduce(jnp.add, exponents))


def _of_pairs(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """For length-scales of pairs: 1 / u, (a^2 + b^2) / u^2, and 2 a b / (a^2 + b^2).

    u is a power of two near the larger one, so that no square overflows or vanishes, nor does one
    in a derivative. The last is exactly 1 at a = b; and never 0, where a root has no derivative.
    """
    unit = jnp.minimum(inverse_power_of_two(a), inverse_power_of_two(b))
    a, b = a * unit, b * unit
    total = a * a + b * b
    return unit, total, jnp.maximum(2.0 * a * b / total, jnp.finfo(total.dtype).tiny)


def _square(difference: Array, unit: Array) -> Array:
    """Of a difference in units; where it would overflow, a number that is as good."""
    most = 2.0 ** (jnp.finfo(difference.dtype).maxexp // 2 - 8)
    return jnp.square(jnp.clip(difference * unit, -most, most))


def _rows(j: int, *values: Array) -> list[Array]:
    """Coordinate j of the first point, or of the first set along the rows of a matrix."""
    return [value[j] if value.ndim == 1 else value[:, j][:, None] for value in values]


def _columns(j: int, *values: Array) -> list[Array]:
    return [value[j] if value.ndim == 1 else value[:, j][None, :] for value in values]
