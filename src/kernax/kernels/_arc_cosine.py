"""The arc-cosine kernels: neural networks with one infinitely wide layer."""

from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from .._module import with_fields
from .._parameters import positive
from .._typing import (
    Matrix,
    OtherPointOrPoints,
    OtherPoints,
    Parameter,
    Point,
    PointOrPoints,
    Points,
    Scalar,
)
from ._base import AbstractKernel
from ._dot_product import facing, per_coordinate, unit_and_norm, whole_number
from ._pairs import check_per_dimension, check_single, in_one_dtype, pair_sum

# arcsin(sqrt(t)) / sqrt(t) for 0 <= t <= 1/2 in powers of z = 4 t - 1, the highest first:
# interpolated at 19 Chebyshev points in 60 digits, 2e-17 from it. All are positive, so that
# nothing cancels.
_ARCSINE = (
    1.294087904918515e-11, 4.207679353989645e-11, 7.597606552881001e-11, 2.514428331625947e-10,
    9.606986257778525e-10, 3.2125465398641487e-09, 1.0699801762268182e-08, 3.646596273974707e-08,
    1.2584618618630428e-07, 4.402075904513191e-07, 1.5669625983394028e-06, 5.701781075076665e-06,
    2.134555260606702e-05, 8.302317819140265e-05, 0.0003408637234163692, 0.001519668539582746,
    0.007798902238973735, 0.05375149359132718, 1.0471975511965979,
)  # fmt: skip


class ArcCosineKernel(AbstractKernel):
    """A network with one infinitely wide layer: of steps, ramps or squared ramps by ``order``.

    k(x, y) = norm(u)^order norm(v)^order J_order(angle(u, v)) / pi

    with u = (sqrt(weight_variance) x, sqrt(bias_variance)), v the same of y, and

    J_0(t) = pi - t,
    J_1(t) = sin(t) + (pi - t) cos(t),
    J_2(t) = 3 sin(t) cos(t) + (pi - t) (1 + 2 cos(t)^2).

    It is 2 E[h(w . u) h(w . v)] over standard normal weights w, for h(a) = a^order where a > 0 and
    0 elsewhere. ``order`` is 0, 1 or 2 and part of the structure: `ParameterError` for another one.
    ``weight_variance``: one value, or one per dimension. The process is ``order`` times mean-square
    differentiable; for order 0 the gradient at coincident points is given as 0, the mean of the
    one-sided slopes. Cho and Saul (2009), equations 3 to 6.
    """

    order: int = eqx.field(static=True, default=1, converter=lambda value: _as_order(value))
    weight_variance: Parameter = positive(1.0)
    bias_variance: Parameter = positive(1.0)
    symmetric_rounding: ClassVar[bool] = True

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return float(self.order)

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """(|u| |v|)^order J_order(angle(u, v)) / pi."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        weights = self.weight_variance / jnp.square(length_scales)
        return with_fields(self, weight_variance=weights)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        x, y, weight, bias = in_one_dtype(x, y, self.weight_variance, self.bias_variance)
        check_per_dimension(weight, x.shape[-1], "weight_variance")
        check_single(bias_variance=bias)

        def augmented(points: Array) -> Array:
            column = jnp.broadcast_to(jnp.sqrt(bias), (*points.shape[:-1], 1))
            return jnp.concatenate([per_coordinate(points, jnp.sqrt(weight)), column], axis=-1)

        (u, u_norm), (v, v_norm) = unit_and_norm(augmented(x)), unit_and_norm(augmented(y))
        # Of unit vectors; the cosine alone would lose half of the digits of angles near 0 and pi.
        difference = pair_sum(lambda a, b: jnp.square(a - b), u, v)
        total = pair_sum(lambda a, b: jnp.square(a + b), u, v)
        lengths = jnp.multiply(*facing(u_norm, v_norm))
        value = angular(self.order, difference, total) * (1.0 / np.pi)
        return jax.lax.integer_pow(lengths, self.order) * value if self.order else value


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def angular(order: int, difference: Array, total: Array) -> Array:
    """J_order(t) for the angle t between unit vectors, by |u - v|^2 and |u + v|^2 (their sum is 4).

    These are 4 sin^2(t/2) and 4 cos^2(t/2).
    """
    small = difference <= total
    least = jnp.minimum(difference, total)
    # t, or pi - t, whichever is at most pi / 2 (up to rounding).
    acute = jnp.sqrt(least) * _arcsine_ratio(0.25 * least)
    supplement = jnp.where(small, np.pi - acute, acute)
    if order == 0:
        return supplement
    cosine = jnp.where(small, 1.0 - 0.5 * least, 0.5 * least - 1.0)
    sine = 0.5 * jnp.sqrt(difference * total)
    if order == 1:
        return sine + supplement * cosine
    return 3.0 * sine * cosine + supplement * (1.0 + 2.0 * jnp.square(cosine))


@angular.defjvp
def _(order: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    # With s = |u - v|^2 the family is closed: dJ_n/ds = -(n^2 / 2) J_(n-1), exact at s = 0 too.
    # Near t = pi it is the other square that keeps its digits, and ds is minus its change.
    difference, total = primals
    value = angular(order, difference, total)
    change = jnp.where(difference <= total, tangents[0], -tangents[1])
    if order > 0:
        return value, (-0.5 * order**2) * angular(order - 1, difference, total) * change
    # t has a kink where the vectors are parallel. The one-sided slopes of the kernel average to 0.
    product = difference * total
    apart = product > 0
    root = jnp.sqrt(jnp.where(apart, product, 1.0))
    return value, jnp.where(apart, -1.0 / root, 0.0) * change


def _arcsine_ratio(t: Array) -> Array:
    """arcsin(sqrt(t)) / sqrt(t) for 0 <= t <= 1/2, by a polynomial.

    XLA calls a scalar arctangent for each pair, which takes ten times as long.
    """
    z = 4.0 * t - 1.0
    value = jnp.full_like(t, _ARCSINE[0])
    for coefficient in _ARCSINE[1:]:
        value = value * z + coefficient
    return value


def _as_order(value: Any) -> int:
    order = whole_number(value)
    if order not in (0, 1, 2):
        raise ParameterError(
            f"ArcCosineKernel: `order` is {value!r}, expected 0, 1 or 2. "
            "Fix: pass one of these; 1 is the ramp."
        )
    return order
