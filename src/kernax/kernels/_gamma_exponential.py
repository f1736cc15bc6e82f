"""The gamma-exponential kernel."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._parameters import interval
from .._typing import Parameter
from ._stationary import StationaryKernel


class GammaExponentialKernel(StationaryKernel):
    """Between the exponential (``gamma`` = 1) and the squared exponential (``gamma`` = 2).

    k(x, y) = exp(-r^gamma),  r = |x - y| / length_scale, Euclidean, 0 < gamma <= 2.

    For ``gamma`` < 2 the process is continuous and nowhere differentiable; as ``gamma`` is a
    hyperparameter, 2 included, ``differentiability`` is 0. The gradient at coincident points is
    given as 0, the mean of the one-sided slopes. To fit ``gamma``, start below 2. Rasmussen and
    Williams (2006), equation 4.18.
    """

    gamma: Parameter = interval(0.0, 2.0, 1.0, closed=True)
    differentiability: ClassVar[float] = 0

    def profile(self, s: Array) -> Array:
        return jnp.exp(-_half_power(s, self.gamma))


@jax.custom_jvp
def _half_power(s: Array, gamma: Array) -> Array:
    """s^(gamma / 2) for s >= 0, at most exp(14), of which the exponential is 0 to all digits."""
    exponent = jnp.minimum(0.5 * gamma * jnp.log(_apart(s)), 14.0)
    return jnp.where(s > 0, jnp.exp(exponent), 0.0)


@_half_power.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    (s, gamma), (ds, dgamma) = primals, tangents
    value, apart = _half_power(s, gamma), _apart(s)
    # At s = 0 the slope in s is infinite for gamma < 2, and multiplies a ds of 0.
    at_zero = jnp.where(gamma < 2, 0.0, 1.0).astype(s.dtype)
    slope = jnp.where(s > 0, 0.5 * gamma * value / apart, at_zero)
    return value, slope * ds + 0.5 * jnp.log(apart) * value * dgamma


def _apart(s: Array) -> Array:
    """s, and 1 in place of 0."""
    return jnp.where(s > 0, s, 1.0)
