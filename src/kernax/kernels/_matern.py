"""The Matern kernels of half-integer smoothness nu = p + 1/2."""

import math
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from ._stationary import StationaryKernel

LARGEST_NU = 100.5  # beyond, exp(-t) underflows in 32 bits where the kernel does not


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def matern_profile(p: int, u: Array) -> Array:
    """M_p(u), the Matern profile of smoothness p + 1/2 at u = (2 p + 1) r^2.

    With t = sqrt(u): exp(-t), (1 + t) exp(-t), (1 + t + t^2 / 3) exp(-t) for p = 0, 1, 2, and in
    general M_p = q_p(t) exp(-t) with q_0 = 1, q_1 = 1 + t and
    q_p = q_(p-1) + t^2 q_(p-2) / ((2 p - 1) (2 p - 3)).
    """
    if p > 2:
        # Where exp(-t) is 0 in this dtype, so that no power of t overflows beside it.
        u = jnp.minimum(u, jnp.asarray((1.3 * np.log(jnp.finfo(u.dtype).max)) ** 2, u.dtype))
    t = jnp.sqrt(u)
    previous, polynomial = jnp.ones_like(t), (jnp.ones_like(t) if p == 0 else 1.0 + t)
    for q in range(2, p + 1):
        previous, polynomial = (
            polynomial,
            polynomial + u * previous * (1.0 / ((2 * q - 1) * (2 * q - 3))),
        )
    return polynomial * jnp.exp(-t)


@matern_profile.defjvp
def _(p: int, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    # The family is closed: dM_p/du = -M_(p-1) / (2 (2 p - 1)). Said in u it is exact at u = 0,
    # where differentiating sqrt gives inf * 0, and a safe square root a wrong 0.
    (u,), (du,) = primals, tangents
    value = matern_profile(p, u)
    if p > 0:
        return value, matern_profile(p - 1, u) * (-0.5 / (2 * p - 1)) * du
    # exp(-sqrt(u)) has a kink at 0. The one-sided slopes of the kernel there average to 0. Points
    # nearer than any rounding count as equal: negative powers of t in the next orders are finite.
    apart = u > jnp.finfo(u.dtype).tiny ** 0.5
    t = jnp.sqrt(jnp.where(apart, u, 1.0))
    return value, jnp.where(apart, -0.5 * value / t, 0.0) * du


class Matern12Kernel(StationaryKernel):
    """Matern of smoothness 1/2, the exponential or Ornstein-Uhlenbeck kernel.

    k(x, y) = exp(-r),  r = |x - y| / length_scale, Euclidean.

    Not differentiable at r = 0: its gradient at coincident points is given as 0, the mean of
    the one-sided slopes. Rasmussen and Williams (2006), equation 4.14 with nu = 1/2.
    """

    differentiability: ClassVar[float] = 0

    def profile(self, s: Array) -> Array:
        return matern_profile(0, s)


class Matern32Kernel(StationaryKernel):
    """Matern of smoothness 3/2, once mean-square differentiable.

    k(x, y) = (1 + sqrt(3) r) exp(-sqrt(3) r),  r = |x - y| / length_scale, Euclidean.

    Rasmussen and Williams (2006), equation 4.17.
    """

    differentiability: ClassVar[float] = 1

    def profile(self, s: Array) -> Array:
        return matern_profile(1, 3.0 * s)


class Matern52Kernel(StationaryKernel):
    """Matern of smoothness 5/2, twice mean-square differentiable.

    k(x, y) = (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r),  r = |x - y| / length_scale, Euclidean.

    Rasmussen and Williams (2006), equation 4.17.
    """

    differentiability: ClassVar[float] = 2

    def profile(self, s: Array) -> Array:
        return matern_profile(2, 5.0 * s)


def _half_integer(value: Any) -> float:
    try:
        nu = float(value)
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError):
        nu = math.nan
    p = round(nu - 0.5) if math.isfinite(nu) else 1
    nearest = min(max(p, 0) + 0.5, LARGEST_NU)
    if isinstance(value, bool) or nu != nearest:
        raise ParameterError(
            f"`nu` is {value!r}, expected a half-integer from 0.5 to {LARGEST_NU}: 0.5, 1.5, 2.5 "
            f"and so on, known when the kernel is built. Fix: pass the nearest, nu={nearest}, or "
            "use SEKernel, the limit of large nu."
        )
    return nu


class MaternKernel(StationaryKernel):
    """Matern of any half-integer smoothness ``nu``, p = nu - 1/2 times mean-square differentiable.

    k(x, y) = 2^(1 - nu) / gamma(nu) t^nu besselk(nu, t),  t = sqrt(2 nu) |x - y| / length_scale,

    Euclidean; evaluated as the polynomial of degree p times exp(-t) that it is. ``nu`` is part of
    the structure, never fitted: `ParameterError` for what is no half-integer, or above 100.5,
    where the kernel is the squared exponential within 0.3%. Rasmussen and Williams (2006),
    equations 4.14 and 4.16.
    """

    nu: float = eqx.field(default=1.5, static=True, converter=_half_integer)

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return self.nu - 0.5

    def profile(self, s: Array) -> Array:
        return matern_profile(round(self.nu - 0.5), 2.0 * self.nu * s)
