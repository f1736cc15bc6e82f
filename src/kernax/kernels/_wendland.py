"""Wendland's kernels of compact support: 0 for all points further apart than a length-scale."""

import operator
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError
from .._module import field_values, rebuild_fields, with_fields
from .._parameters import positive
from .._typing import Matrix, OtherPoints, Parameter, Point, Points, Scalar
from ._base import AbstractKernel
from ._stationary import StationaryKernel


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def wendland_profile(smoothness: int, power: int, s: Array) -> Array:
    """Wendland's function of smoothness 0, 1 or 2 and exponent l = ``power`` at s = r^2, 1 at 0.

    With b = (1 - r)_+: b^l, b^(l+1) ((l + 1) r + 1), and
    b^(l+2) ((l + 1) (l + 3) r^2 + 3 (l + 2) r + 3) / 3.
    """
    r = jnp.minimum(jnp.sqrt(s), 1.0)
    base = jax.lax.integer_pow(1.0 - r, power + smoothness)
    if smoothness == 0:
        return base
    if smoothness == 1:
        return base * ((power + 1) * r + 1.0)
    return base * (((power + 1) * (power + 3) / 3 * r + (power + 2)) * r + 1.0)


@wendland_profile.defjvp
def _(smoothness: int, power: int, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    # Each function is an integral of the one before, of the same exponent: d/ds W_k = -c W_(k-1).
    # Said in s it is exact at s = 0, where differentiating sqrt gives inf * 0.
    (s,), (ds,) = primals, tangents
    value = wendland_profile(smoothness, power, s)
    if smoothness > 0:
        c = (power + 1) * (power + 2) / 2 if smoothness == 1 else (power + 3) * (power + 4) / 6
        return value, -c * wendland_profile(smoothness - 1, power, s) * ds
    # (1 - r)_+^l has a kink at 0, where the one-sided slopes of the kernel average to 0.
    inside = (s > jnp.finfo(s.dtype).tiny ** 0.5) & (s < 1)
    r = jnp.sqrt(jnp.where(inside, s, 0.25))
    slope = -0.5 * power * jax.lax.integer_pow(1.0 - r, power - 1) / r
    return value, jnp.where(inside, slope, 0.0) * ds


def _smoothness(value: Any) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number not in (0, 1, 2):
        raise ParameterError(
            f"`smoothness` is {value!r}, expected 0, 1 or 2. "
            "Fix: pass one of these, for instance smoothness=2."
        )
    return number


class WendlandKernel(AbstractKernel):
    """Compactly supported: 0 beyond one ``length_scale``, ``smoothness`` times differentiable.

    k(x, y) = (1 - r)_+^6 (35 r^2 + 18 r + 3) / 3,  r = |x - y| / length_scale,

    for ``smoothness`` 2 and d <= 3. In general, with l = floor(max(d, 3) / 2) + smoothness + 1, it
    is (1 - r)_+^l for ``smoothness`` 0, (1 - r)_+^(l+1) ((l + 1) r + 1) for 1, and
    (1 - r)_+^(l+2) ((l + 1) (l + 3) r^2 + 3 (l + 2) r + 3) / 3 for 2: positive definite for points
    of dimension d, which are those that it is called on, the active ones inside
    `ActiveDimsKernel`.

    ``smoothness``: 0, 1 or 2, part of the structure; else `ParameterError`. ``length_scale``: the
    radius of the support, one value or one per dimension. For ``smoothness`` 0 the gradient at
    coincident points is given as 0. Wendland (1995); Rasmussen and Williams (2006), equation 4.21.
    """

    smoothness: int = eqx.field(default=2, static=True, converter=_smoothness)
    length_scale: Parameter = positive(1.0)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return float(self.smoothness)

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """Wendland's function of |x - y|^2 / length_scale^2 in the dimension of the points."""
        return self.in_dimension(x.shape[-1]).pairwise(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self.in_dimension(X.shape[-1]).matrix(X, Y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return with_fields(self, length_scale=self.length_scale * length_scales)

    def in_dimension(self, d: int) -> "_WendlandProfile":
        """The kernel with the exponent for points of dimension d, a profile of the distance."""
        power = max(d, 3) // 2 + self.smoothness + 1
        values = field_values(self) | {"power": power}
        kernel: _WendlandProfile = rebuild_fields(_WendlandProfile, values)
        return kernel


class _WendlandProfile(StationaryKernel):
    """A Wendland kernel whose exponent is chosen."""

    smoothness: int = eqx.field(default=2, static=True)
    power: int = eqx.field(default=4, static=True)

    def profile(self, s: Array) -> Array:
        return wendland_profile(self.smoothness, self.power, s)
