"""Spectral densities of stationary kernels: their Fourier transforms, in closed form."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import ParameterError, ShapeError
from .._module import Structure, flatten, prepared
from .._typing import ArrayLike, Points, Scalar, Vector
from ._base import AbstractKernel
from ._compose import NegKernel, PowerKernel, ProductKernel, SumKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._gamma_exponential import GammaExponentialKernel
from ._levels import PointSet, over_levels
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel
from ._pairs import check_per_dimension
from ._periodic import PeriodicKernel
from ._rules import Rules
from ._spectral_mixture import CosineKernel, SpectralMixtureKernel
from ._stationary import RationalQuadraticKernel, SEKernel
from ._transforms import ActiveDimsKernel, ARDKernel

_RULES = Rules("spectral_density")
NODES, BLOCK = 300, 1024


def spectral_density(kernel: Any, omega: ArrayLike) -> Array:
    """The spectral density of a stationary kernel k(x, y) = k(x - y), at angular frequencies.

    S(omega) = int k(r) exp(-i omega . r) dr  over R^d, so that
    k(r) = (2 pi)^-d int S(omega) exp(i omega . r) d omega.

    ``omega``: (m, d), or (m,) for m frequencies of dimension one. Returns (m,); of a batch of
    kernels, (b, m). Differentiable in the hyperparameters and in ``omega``; rows with a NaN give
    NaN.

    For squared exponential, Matern, rational quadratic and spectral mixture kernels, their sums,
    multiples, `ARDKernel`, `ActiveDimsKernel` of all dimensions in another order, and products
    over dimensions of their own, each in an `ActiveDimsKernel`. A rational quadratic has a
    singularity at 0 for alpha <= d/2; elsewhere it is computed as an integral, to a relative error
    of 1e-11 (2e-5 in 32 bits). A stationary class of yours takes part by a method
    ``spectral_density(self, omega)``, from (m, d) to (m,).

    Raises `ParameterError`, which names the part, for kernels without a density: lines (periodic,
    cosine, constant), white noise, what is not stationary, what does not read all dimensions; and
    for those of which none is known.
    """
    structure, leaves = _flat(kernel, "spectral_density")
    points, _ = _inputs.as_points(omega, "omega")
    if points.ndim == 0:
        raise ShapeError("`omega` has shape (), expected (m, d) or (m,). Fix: pass a list.")
    return _evaluate(structure, leaves, points)


def _flat(kernel: Any, function: str) -> tuple[Structure, tuple[Array, ...]]:
    if not isinstance(kernel, AbstractKernel):
        raise ParameterError(
            f"`kernel` of `{function}` is a {type(kernel).__name__}, expected a kernel. "
            "Fix: pass for instance kernax.SEKernel()."
        )
    return flatten(kernel)


@partial(jax.jit, static_argnames=("structure",), inline=True)
def _evaluate(structure: Structure, leaves: tuple[Array, ...], omega: Array) -> Array:
    _inputs.check_dtype(omega.dtype, "omega")
    dtype = _inputs.common_dtype(omega, *leaves)
    omega = (omega if omega.ndim > 1 else omega[:, None]).astype(dtype)

    def one(kernel: Any, omega: Points, _: None) -> Vector:
        values = density(prepared(kernel, dtype), _padding.clean(omega, None)[0])
        return jnp.where(jnp.isfinite(omega).all(axis=-1), values, jnp.nan)

    return over_levels(one, structure.rebuild(leaves), PointSet(omega, "omega", may_share=True))


def density(kernel: Any, omega: Points) -> Vector:
    """The spectral density of a prepared kernel, for use inside traced code."""
    rule = _RULES.find(kernel)
    if rule is None:
        reason, fix = _refusal(kernel)
        raise ParameterError(
            f"`spectral_density`: {type(kernel).__name__} {reason}. Fix: {fix}, or use "
            "`random_features`, which need no density."
        )
    values: Vector = rule(kernel, omega)
    return values


def _refusal(kernel: Any) -> tuple[str, str]:
    """Why a kernel has no density, and what to do."""
    match kernel:
        case PeriodicKernel() | CosineKernel():
            return "has a spectrum of lines, and no density", "leave it out"
        case ConstantKernel():
            return "has a line at frequency 0 for a spectrum, and no density", "leave it out"
        case WhiteNoiseKernel():
            return "belongs to the observations, and has no spectrum", "leave it out"
        case ProductKernel() | PowerKernel():
            reason = "multiplies kernels that share dimensions, whose densities are convolved"
            return reason, "multiply kernels of different dimensions, each in an ActiveDimsKernel"
        case GammaExponentialKernel():
            reason = "has a density in closed form for two values of gamma only"
            return reason, "use Matern12Kernel (gamma = 1) or SEKernel (gamma = 2)"
    if not kernel.stationary:
        return "is not stationary", "use a stationary kernel"
    return "has no density that is known", "define spectral_density(self, omega) in its class"


# --- densities in closed form --------------------------------------------------------------------


@_RULES.of(SEKernel)
def _(kernel: SEKernel, omega: Points) -> Vector:
    square, log_volume = _scaled(kernel, omega)
    return jnp.exp(log_volume + omega.shape[1] / 2 * math.log(2 * math.pi) - 0.5 * square)


@_RULES.of(Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel)
def _(kernel: Any, omega: Points) -> Vector:
    nu, half = kernel.differentiability + 0.5, omega.shape[1] / 2
    square, log_volume = _scaled(kernel, omega)
    level = half * math.log(2 * math.pi / nu) + math.lgamma(nu + half) - math.lgamma(nu)
    return jnp.exp(log_volume + level - (nu + half) * jnp.log1p(square / (2 * nu)))


@_RULES.of(RationalQuadraticKernel)
def _(kernel: RationalQuadraticKernel, omega: Points) -> Vector:
    d = omega.shape[1]
    square, log_volume = _scaled(kernel, omega)
    log_mean = _log_mean_of_gaussians(d / 2, kernel.alpha, square)
    return jnp.exp(log_volume + d / 2 * math.log(2 * math.pi) + log_mean)


@_RULES.of(SpectralMixtureKernel)
def _(kernel: SpectralMixtureKernel, omega: Points) -> Vector:
    frequency = omega / (2 * math.pi)
    total = jnp.zeros_like(omega[:, 0])
    means, scales = kernel.components(omega.shape[1])
    for weight, mean, scale in zip(kernel.weights, means, scales, strict=True):
        level = jnp.log(0.5 * weight) - jnp.sum(jnp.log(math.sqrt(2 * math.pi) * scale))
        for sign in (1.0, -1.0):
            z = _capped((frequency - sign * mean[None, :]) / scale[None, :])
            total = total + jnp.exp(level - 0.5 * jnp.sum(z * z, axis=1))
    return total


def _scaled(kernel: Any, omega: Points) -> tuple[Vector, Scalar]:
    """|length_scale omega|^2, and the logarithm of the product of the length-scales."""
    d = omega.shape[1]
    check_per_dimension(kernel.length_scale, d, "length_scale")
    scale = jnp.broadcast_to(kernel.length_scale, (d,))
    square = jnp.sum(jnp.square(_capped(omega * scale[None, :])), axis=1)
    return square, jnp.sum(jnp.log(scale))


def _capped(z: Array) -> Array:
    """z kept from squares that overflow, where every density is 0."""
    largest = jnp.asarray(jnp.finfo(z.dtype).max ** 0.25, z.dtype)
    return jnp.clip(z, -largest, largest)


# --- of kernels made of others -------------------------------------------------------------------


@_RULES.of(SumKernel)
def _(kernel: SumKernel, omega: Points) -> Vector:
    return density(kernel.left_kernel, omega) + density(kernel.right_kernel, omega)


@_RULES.of(NegKernel)
def _(kernel: NegKernel, omega: Points) -> Vector:
    return -density(kernel.inner_kernel, omega)


@_RULES.of(ProductKernel, PowerKernel)
def _(kernel: Any, omega: Points) -> Vector:
    d = omega.shape[1]
    parts = factors(kernel)
    scalars = [part.value for part in parts if isinstance(part, ConstantKernel)]
    others = [part for part in parts if not isinstance(part, ConstantKernel)]
    if not others:
        return density(parts[0], omega)
    if len(others) == 1:
        values = density(others[0], omega)
    else:
        # Over dimensions of their own the integral is a product of integrals.
        read = [dims for part in others for dims in _dims(part, d)]
        if sorted(read) != list(range(d)):
            reason, fix = _refusal(kernel)
            raise ParameterError(
                f"`spectral_density`: {type(kernel).__name__} {reason}. Fix: {fix}."
            )
        separate: Any = [density(part.inner_kernel, part.chosen(omega)) for part in others]
        values = math.prod(separate[1:], start=separate[0])
    return math.prod(scalars, start=values)


def factors(kernel: Any) -> list[Any]:
    """The kernels that a product, or a power, multiplies."""
    if isinstance(kernel, ProductKernel):
        return factors(kernel.left_kernel) + factors(kernel.right_kernel)
    if isinstance(kernel, PowerKernel):
        return factors(kernel.inner_kernel) * kernel.exponent
    return [kernel]


def _dims(kernel: Any, d: int) -> list[int]:
    """The dimensions that a factor reads, counted from 0."""
    if not isinstance(kernel, ActiveDimsKernel):
        return list(range(d))
    kernel.check(d)
    return [dim % d for dim in kernel.active_dims]


@_RULES.of(ActiveDimsKernel)
def _(kernel: ActiveDimsKernel, omega: Points) -> Vector:
    d = omega.shape[1]
    missing = sorted(set(range(d)) - set(_dims(kernel, d)))
    if missing:
        raise ParameterError(
            f"`spectral_density`: ActiveDimsKernel does not read dimension {missing[0]} of {d}, in "
            "which it is constant and has no density. Fix: use its inner_kernel on the active "
            "dimensions, or `random_features`, which need no density."
        )
    return density(kernel.inner_kernel, kernel.chosen(omega))


@_RULES.of(ARDKernel)
def _(kernel: ARDKernel, omega: Points) -> Vector:
    scales = kernel.length_scales
    check_per_dimension(scales, omega.shape[1], "length_scales")
    return jnp.prod(scales) * density(kernel.inner_kernel, omega * scales[None, :])


# --- rational quadratic --------------------------------------------------------------------------


def _log_mean_of_gaussians(half: float, alpha: Scalar, square: Vector) -> Vector:
    """log E[tau^-half exp(-square / (2 tau))], tau ~ Gamma(alpha, rate alpha).

    A rational quadratic is such a mixture of squared exponentials, so this is its density up to
    a constant (a Bessel function K of order alpha - half). With tau = exp(t) the integrand is
    log-concave and analytic, and the trapezoidal rule between the points where it has no more
    digits converges exponentially; its derivatives do too, with the nodes held.
    """
    order = alpha - half
    # At square = 0 a small order has a tail too long for the nodes, but a closed form.
    closed = (square == 0) & (order < 2)
    safe = jnp.where(closed, 1.0, square)
    lowest, step = jax.lax.stop_gradient(_span(order, alpha, safe))
    level = _log_gamma_level(alpha)
    offsets = jnp.arange(NODES, dtype=square.dtype) + 0.5

    @jax.checkpoint
    def integrate(each: tuple[Array, Array, Array]) -> Array:
        lowest, step, square = each
        t = lowest + step * offsets
        exponent = -alpha * (jnp.expm1(t) - t) - half * t - 0.5 * square * jnp.exp(-t)
        return jnp.log(step) + jax.scipy.special.logsumexp(exponent)

    integral = level + jax.lax.map(integrate, (lowest, step, safe), batch_size=BLOCK)
    lgamma = jax.scipy.special.gammaln
    there = half * jnp.log(alpha) + lgamma(jnp.where(order > 0, order, 1.0)) - lgamma(alpha)
    return jnp.where(closed, jnp.where(order > 0, there, jnp.inf), integral)


def _span(order: Scalar, alpha: Scalar, square: Vector) -> tuple[Vector, Vector]:
    """Where the integrand starts to count, and the step of the nodes up to where it ends.

    A distance v from its peak the logarithm has dropped by a (cosh v - 1) + order (sinh v - v),
    with a >= |order| the curvature there.
    """
    size = jnp.abs(order)
    a = jnp.sqrt(size**2 + 2.0 * alpha * square)
    beyond = 2.0 * alpha * square / (a + size)  # a - |order|
    peak = jnp.where(order > 0, jnp.log((a + size) / (2.0 * alpha)), jnp.log(square / (a + size)))
    drop = 4.0 - math.log(float(jnp.finfo(square.dtype).eps))
    arccosh = lambda x: jnp.log1p(x + jnp.sqrt(x) * jnp.sqrt(x + 2.0))  # of 1 + x
    ratio = drop / size
    slow = 0.5 * (ratio + jnp.sqrt(ratio * (ratio + 8.0)))  # |order| v^2 / (2 + v) = drop
    near, far = arccosh(drop / a), jnp.minimum(slow, arccosh(drop / beyond))
    lowest = peak - jnp.where(order > 0, far, near)
    return lowest, (near + far) / NODES


def _log_gamma_level(alpha: Scalar) -> Scalar:
    """alpha log(alpha) - alpha - log Gamma(alpha), a small difference where alpha is large."""
    large = jnp.maximum(alpha, 10.0)
    r = 1.0 / (large * large)
    series = 1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r * (1 / 1188))))
    stirling = 0.5 * jnp.log(large / (2 * math.pi)) - series / large
    small = jnp.minimum(alpha, 10.0)
    direct = small * jnp.log(small) - small - jax.scipy.special.gammaln(small)
    return jnp.where(alpha > 10.0, stirling, direct)
