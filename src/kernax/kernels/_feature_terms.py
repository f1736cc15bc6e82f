"""Kernels as sums of random plane waves: the spectral measures that `random_features` samples."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError
from ._batch import BatchKernel
from ._compose import NegKernel, PowerKernel, ProductKernel, SumKernel
from ._dot_product import LinearKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._gamma_exponential import GammaExponentialKernel
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel
from ._pairs import check_per_dimension
from ._periodic import PeriodicKernel
from ._rules import Rules
from ._spectral_mixture import CosineKernel, SpectralMixtureKernel
from ._stationary import RationalQuadraticKernel, SEKernel
from ._transforms import ActiveDimsKernel, ARDKernel

MOST_TERMS = 1000
MOST_COUNTS = 1e8  # the mean of a Poisson variable that is still drawn as a whole number

_TERMS = Rules("")
_SAMPLES = Rules("spectral_sample")


class Part(NamedTuple):
    """Frequencies of plane waves, in cycles per unit of x, or, where given, per ``period`` (d,).

    ``draw(key, m)`` gives m of them, (m, d), and the logarithm of a weight for each, which is 0 and
    has a derivative where the draw itself cannot have one. They are ``random`` with a distribution
    symmetric about 0, or all the same.
    """

    draw: Callable[[Array, int], tuple[Array, Array]]
    period: Array | None = None
    random: bool = True


class Waves(NamedTuple):
    """weight E[cos(2 pi f . (x - y))], f the sum of the frequencies of independent ``parts``."""

    weight: Array
    parts: tuple[Part, ...] = ()

    @property
    def random(self) -> bool:
        return any(part.random for part in self.parts)

    def changed(self, change: Callable[[Part], Part]) -> "Waves":
        return Waves(self.weight, tuple(change(part) for part in self.parts))


class Line(NamedTuple):
    """weight (x - offset) . (y - offset) of some ``dims``, scaled."""

    weight: Array
    dims: tuple[int, ...]
    scale: Array
    offset: Array


def terms(kernel: Any, d: int) -> list[Any]:
    """A prepared kernel, without white noise, as a sum of `Waves` and `Line`."""
    rule = _TERMS.find(kernel)
    if rule is not None:
        found: list[Any] = rule(kernel, d)
        return found
    sample = _SAMPLES.find(kernel)
    if sample is None:
        raise ParameterError(_refusal(kernel))
    origin = jnp.zeros(d, _dtype(kernel))
    draw = lambda key, m: _plain(sample(kernel, key, d, m) / (2 * math.pi))
    return [Waves(kernel.pairwise(origin, origin), (Part(draw),))]


def _refusal(kernel: Any) -> str:
    match kernel:
        case NegKernel():
            reason, fix = "has a minus sign, and no real features", "use a sum of covariances"
        case BatchKernel():
            reason, fix = "is many kernels", "take one element, batch[i]"
        case _ if not kernel.stationary:
            reason, fix = "is not stationary, and has no spectrum", "use a stationary kernel"
        case _:
            reason = "has no spectral measure that could be sampled"
            fix = "define spectral_sample(self, key, d, count) in its class"
    return f"`random_features`: {type(kernel).__name__} {reason}. Fix: {fix}."


def _dtype(kernel: Any) -> Any:
    found = [leaf.dtype for leaf in jax.tree.leaves(kernel) if hasattr(leaf, "dtype")]
    return found[0] if found else jnp.result_type(float)


def _plain(frequencies: Array) -> tuple[Array, Array]:
    return frequencies, jnp.zeros(frequencies.shape[:1], frequencies.dtype)


# --- kernels by their spectral measure ------------------------------------------------------------


def _mixture_of_gaussians(
    kernel: Any, d: int, log_rate: Callable[[Array, int], Array] | None
) -> list[Any]:
    """One of k = E[exp(-tau r^2 / 2)], given a sampler of log(tau); None for tau = 1."""
    check_per_dimension(kernel.length_scale, d, "length_scale")
    scale = jnp.broadcast_to(kernel.length_scale, (d,))

    def draw(key: Array, m: int) -> tuple[Array, Array]:
        first, second = jax.random.split(key)
        z = jax.random.normal(first, (m, d), scale.dtype) / (2 * math.pi * scale[None, :])
        if log_rate is None:
            return _plain(z)
        largest = math.log(float(jnp.finfo(z.dtype).max)) / 4
        root = jnp.exp(jnp.clip(0.5 * log_rate(second, m), -largest, largest))
        return _plain(z * root[:, None])

    return [Waves(jnp.ones((), scale.dtype), (Part(draw),))]


@_TERMS.of(SEKernel)
def _(kernel: SEKernel, d: int) -> list[Any]:
    return _mixture_of_gaussians(kernel, d, None)


@_TERMS.of(Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel)
def _(kernel: Any, d: int) -> list[Any]:
    # Student's t with 2 nu = 2 p + 1 degrees of freedom: a chi-squared variable of whole numbers.
    degrees, dtype = round(2 * kernel.differentiability) + 1, _dtype(kernel)
    normal = lambda key, m: jax.random.normal(key, (m, degrees), dtype)
    log_rate = lambda key, m: -jnp.log(jnp.mean(jnp.square(normal(key, m)), axis=1))
    return _mixture_of_gaussians(kernel, d, log_rate)


@_TERMS.of(RationalQuadraticKernel)
def _(kernel: RationalQuadraticKernel, d: int) -> list[Any]:
    alpha = kernel.alpha
    gamma = lambda key, m: jax.random.loggamma(key, alpha, (m,), alpha.dtype)
    return _mixture_of_gaussians(kernel, d, lambda key, m: gamma(key, m) - jnp.log(alpha))


@_TERMS.of(GammaExponentialKernel)
def _(kernel: GammaExponentialKernel, d: int) -> list[Any]:
    # exp(-s^a) = E[exp(-tau s)] for a positive stable tau of index a (Kanter 1975).
    a = kernel.gamma / 2.0
    below = a < 1
    rest = jnp.where(below, 1.0 - a, 0.5)

    def log_rate(key: Array, m: int) -> Array:
        first, second = jax.random.split(key)
        eps = float(jnp.finfo(a.dtype).eps)
        u = math.pi * jax.random.uniform(first, (m,), a.dtype, eps, 1 - eps)
        log_e = jnp.log(jax.random.exponential(second, (m,), a.dtype) + eps**2)
        sin = lambda v: jnp.log(jnp.sin(v))
        stable = sin(a * u) - sin(u) / a + rest / a * (sin(rest * u) - log_e)
        return math.log(2.0) + jnp.where(below, stable, 0.0)

    return _mixture_of_gaussians(kernel, d, log_rate)


@_TERMS.of(SpectralMixtureKernel)
def _(kernel: SpectralMixtureKernel, d: int) -> list[Any]:
    means, scales = kernel.components(d)

    def component(weight: Array, mean: Array, scale: Array) -> Waves:
        noise = lambda key, m: _plain(scale[None, :] * jax.random.normal(key, (m, d), scale.dtype))
        return Waves(weight, (_fixed(mean), Part(noise)))

    return [component(*each) for each in zip(kernel.weights, means, scales, strict=True)]


@_TERMS.of(CosineKernel)
def _(kernel: CosineKernel, d: int) -> list[Any]:
    check_per_dimension(kernel.period, d, "period")
    period = jnp.broadcast_to(kernel.period, (d,))
    return [Waves(jnp.ones((), period.dtype), (_fixed(jnp.ones_like(period), period),))]


@_TERMS.of(PeriodicKernel)
def _(kernel: PeriodicKernel, d: int) -> list[Any]:
    # exp((cos(t) - 1) / l^2) is the characteristic function of the difference of two Poisson
    # variables of mean 1 / (2 l^2): exact, where a table of Bessel functions would be cut off.
    check_per_dimension(kernel.length_scale, d, "length_scale")
    check_per_dimension(kernel.period, d, "period")
    period = jnp.broadcast_to(kernel.period, (d,))
    mean = 0.5 / jnp.square(jnp.broadcast_to(kernel.length_scale, (d,)))
    held = jax.lax.stop_gradient(mean)

    def draw(key: Array, m: int) -> tuple[Array, Array]:
        counts = jax.random.poisson(key, jnp.minimum(held, MOST_COUNTS), (2, m, d))
        plus, minus = counts[0], counts[1]
        # Whole numbers have no derivative; their probability, by which they are weighted, has.
        total = (plus + minus).astype(mean.dtype)
        score = total * jnp.log(mean / held)[None, :] - 2.0 * (mean - held)[None, :]
        weight = jnp.sum(score, axis=1)
        known = jnp.all(held <= MOST_COUNTS)
        return (plus - minus).astype(mean.dtype), jnp.where(known, weight, jnp.nan)

    return [Waves(jnp.ones((), period.dtype), (Part(draw, period),))]


@_TERMS.of(ConstantKernel)
def _(kernel: ConstantKernel, d: int) -> list[Any]:
    return [Waves(kernel.value)]


@_TERMS.of(LinearKernel)
def _(kernel: LinearKernel, d: int) -> list[Any]:
    check_per_dimension(kernel.offset, d, "offset")
    offset = jnp.broadcast_to(kernel.offset, (d,))
    return [Line(kernel.variance, tuple(range(d)), jnp.ones_like(offset), offset)]


@_TERMS.of(WhiteNoiseKernel)
def _(kernel: WhiteNoiseKernel, d: int) -> list[Any]:
    return []  # as in cross-covariances


def _fixed(frequency: Array, period: Array | None = None) -> Part:
    same = lambda key, m: _plain(jnp.broadcast_to(frequency, (m, *frequency.shape)))
    return Part(same, period, random=False)


# --- kernels made of others -----------------------------------------------------------------------


@_TERMS.of(SumKernel)
def _(kernel: SumKernel, d: int) -> list[Any]:
    return terms(kernel.left_kernel, d) + terms(kernel.right_kernel, d)


@_TERMS.of(ProductKernel)
def _(kernel: ProductKernel, d: int) -> list[Any]:
    return _products(terms(kernel.left_kernel, d), terms(kernel.right_kernel, d))


@_TERMS.of(PowerKernel)
def _(kernel: PowerKernel, d: int) -> list[Any]:
    inner = terms(kernel.inner_kernel, d)
    result = inner
    for _ in range(kernel.exponent - 1):
        result = _products(result, inner)
    return result


@_TERMS.of(ARDKernel)
def _(kernel: ARDKernel, d: int) -> list[Any]:
    scales = kernel.length_scales
    check_per_dimension(scales, d, "length_scales")

    def change(part: Part) -> Part:
        if part.period is not None:
            return part._replace(period=part.period * scales)
        return part._replace(draw=_then(part.draw, lambda f: f / scales[None, :]))

    def scaled(term: Any) -> Any:
        if isinstance(term, Waves):
            return term.changed(change)
        own = scales[jnp.asarray(term.dims)]
        return term._replace(scale=term.scale / own, offset=term.offset * own)

    return [scaled(term) for term in terms(kernel.inner_kernel, d)]


@_TERMS.of(ActiveDimsKernel)
def _(kernel: ActiveDimsKernel, d: int) -> list[Any]:
    kernel.check(d)
    dims = tuple(dim % d for dim in kernel.active_dims)
    columns = jnp.asarray(dims)
    wide = lambda f: jnp.zeros((f.shape[0], d), f.dtype).at[:, columns].set(f)

    def change(part: Part) -> Part:
        part = part._replace(draw=_then(part.draw, wide))
        if part.period is None:
            return part
        period = jnp.ones(d, part.period.dtype).at[columns].set(part.period)
        return part._replace(period=period)

    def placed(term: Any) -> Any:
        if isinstance(term, Waves):
            return term.changed(change)
        return term._replace(dims=tuple(dims[dim] for dim in term.dims))

    return [placed(term) for term in terms(kernel.inner_kernel, len(dims))]


def _then(draw: Any, change: Callable[[Array], Array]) -> Any:
    def changed(key: Array, m: int) -> tuple[Array, Array]:
        frequencies, weights = draw(key, m)
        return change(frequencies), weights

    return changed


def _products(left: list[Any], right: list[Any]) -> list[Any]:
    if len(left) * len(right) > MOST_TERMS:
        raise ParameterError(
            f"`random_features`: a product of sums has {len(left) * len(right)} terms, at most "
            f"{MOST_TERMS} are allowed. Fix: use a lower power, or fewer terms."
        )
    return [term for a in left for b in right for term in _product(a, b)]


def _product(a: Any, b: Any) -> list[Any]:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Line):
            if isinstance(other, Line) or other.parts:
                raise ParameterError(
                    "`random_features`: LinearKernel is multiplied by a kernel that is no "
                    "constant. Fix: multiply it by numbers only."
                )
            return [one._replace(weight=one.weight * other.weight)]
    weight, negative = a.weight * b.weight, b.changed(_negative)
    if all(any(not part.random for part in term.parts) for term in (a, b)):
        # cos u cos v = (cos(u + v) + cos(u - v)) / 2, where chance does not choose the sign.
        half = 0.5 * weight
        return [Waves(half, a.parts + b.parts), Waves(half, a.parts + negative.parts)]
    return [Waves(weight, a.parts + b.parts)]


def _negative(part: Part) -> Part:
    return part if part.random else part._replace(draw=_then(part.draw, lambda f: -f))
