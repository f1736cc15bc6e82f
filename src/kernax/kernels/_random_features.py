"""Random features: a kernel as an inner product of finitely many random functions."""

import operator
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _inputs, _padding
from .._errors import ParameterError, ShapeError
from .._module import Structure, prepared
from .._typing import ArrayLike, Key, Matrix, Points
from ._cycles import both_waves, cycles, fraction
from ._feature_terms import Line, Waves, terms
from ._pairs import MOST_UNROLLED
from ._periodic import remainder
from ._spectral_density import _flat

# m plane waves: amplitudes (m,), frequencies (m, d) in cycles per unit of x or None, and lattices,
# pairs of periods (d,) and multiples (m, d), in cycles per period. Plain tuples, so that files
# hold them.
Lattice = tuple[Array, Array]
Wave = tuple[Array, Array | None, tuple[Lattice, ...]]


class RandomFeatures(eqx.Module):
    """Functions phi with E[phi(X) phi(Y)^T] = K(X, Y), drawn by `random_features`.

    ``phi(X)``, or ``phi.features(X)``, is (n, count) for X (n, d), or (n,), n points of dimension
    one. Rows with a NaN give NaN. A frozen pytree: pass it to `jax.jit`, `jax.grad` and `jax.vmap`.
    ``d`` and ``count`` are its sizes.
    """

    waves: tuple[Wave, ...]
    lines: tuple[tuple[Float[Array, "k"], Float[Array, "k"]], ...]
    constants: Float[Array, "c"]
    line_dims: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    d: int = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def features(self, X: ArrayLike) -> Array:
        """phi at each row of X, (n, d) or (n,) to (n, count)."""
        points, _ = _inputs.as_points(X, "X")
        if points.ndim not in (1, 2) or (points.shape[1] if points.ndim > 1 else 1) != self.d:
            raise ShapeError(
                f"`X` has shape {points.shape}, but the features are of points of dimension "
                f"{self.d}. Fix: pass (n, {self.d})."
            )
        return _features(self, points)

    def __call__(self, X: ArrayLike) -> Array:
        return self.features(X)


def random_features(key: Key, kernel: Any, d: Any, count: Any) -> RandomFeatures:
    """Random Fourier features of a kernel on points of dimension ``d``.

    Returns phi with phi(X) of shape (n, ``count``) and E[phi(X) phi(Y)^T] = K(X, Y) over keys,
    exactly; the error of one draw is of the order of k(0) / sqrt(count). A Gaussian process with
    this kernel is Bayesian linear regression on phi, and phi(X) w with standard normal w is a
    function drawn from its prior.

    For squared exponential, Matern, rational quadratic, gamma-exponential, spectral mixture and
    periodic kernels, which are sampled; constant, cosine and linear kernels, which are exact; and
    their sums, products and powers (of `LinearKernel` with numbers only), `ARDKernel` and
    `ActiveDimsKernel`. White noise is left out, as in cross-covariances. A stationary class of
    yours takes part by a method ``spectral_sample(self, key, d, count)``, angular frequencies
    (count, d) from its spectral density, symmetric about 0.

    How ``count`` is spent: each term of the kernel, products of sums multiplied out, has waves of
    its own. Exact terms come first (one column for a constant, d for a linear kernel, two for a
    cosine); the rest goes in pairs of a cosine and a sine, spread evenly over the sampled terms.
    A column that is left over is 0.

    The same key gives the same features, and they are differentiable in the hyperparameters:
    frequencies are fixed draws, scaled. Of a periodic kernel's whole multiples of 1 / period the
    probabilities are differentiated instead, without bias; for a length-scale below 7e-5 the
    features are NaN. Derivatives of kernels whose process has none (Matern12, gamma-exponential)
    have no finite variance. In more than 64 dimensions phases lose digits far from the origin.

    Raises `ParameterError` for other kernels, naming the part, and where ``count`` is too small.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise ParameterError(
            f"`key` is {key!r}, expected a key of random numbers. Fix: pass jax.random.key(0)."
        )
    structure, leaves = _flat(kernel, "random_features")
    return _draw(structure, leaves, key, _positive(d, "d"), _positive(count, "count"))


def _positive(value: Any, name: str) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ParameterError(
            f"`{name}` is {value!r}, expected a whole number >= 1. Fix: pass for instance 2."
        )
    return number


@partial(jax.jit, static_argnames=("structure", "d", "count"), inline=True)
def _draw(
    structure: Structure, leaves: tuple[Array, ...], key: Array, d: int, count: int
) -> RandomFeatures:
    dtype = _inputs.common_dtype(*leaves)
    parts = terms(prepared(structure.rebuild(leaves), dtype), d)
    lines = [term for term in parts if isinstance(term, Line)]
    waves = [term for term in parts if isinstance(term, Waves) and term.parts]
    constants = [term.weight for term in parts if isinstance(term, Waves) and not term.parts]
    numbers = _pairs(waves, count - len(constants) - sum(len(line.dims) for line in lines), count)
    drawn = [
        _wave(term, jax.random.fold_in(key, index), m)
        for index, (term, m) in enumerate(zip(waves, numbers, strict=True))
    ]
    return RandomFeatures(
        waves=_merged(drawn),
        lines=tuple((jnp.sqrt(line.weight) * line.scale, line.offset) for line in lines),
        constants=jnp.sqrt(jnp.stack(constants)) if constants else jnp.zeros(0, dtype),
        line_dims=tuple(line.dims for line in lines),
        d=d,
        count=count,
    )


def _pairs(waves: list[Waves], columns: int, count: int) -> list[int]:
    """How many waves each term gets: an exact one 1, the others an even share of the rest."""
    sampled = sum(term.random for term in waves)
    spare = columns // 2 - len(waves)
    if columns < 0 or spare < 0:
        raise ParameterError(
            f"`count` is {count}, expected at least {count - columns + 2 * len(waves)} for this "
            f"kernel, whose {len(waves)} waves take two columns each. Fix: pass a larger count."
        )
    shares = iter(1 + spare // sampled + (index < spare % sampled) for index in range(sampled))
    return [next(shares) if term.random else 1 for term in waves]


def _wave(term: Waves, key: Array, m: int) -> Wave:
    frequencies, lattices, log_weight = None, [], jnp.zeros((), term.weight.dtype)
    for index, part in enumerate(term.parts):
        drawn, log_weights = part.draw(jax.random.fold_in(key, index), m)
        log_weight = log_weight + log_weights
        if part.period is not None:
            lattices.append((part.period, drawn))
        else:
            frequencies = drawn if frequencies is None else frequencies + drawn
    amplitudes = jnp.sqrt(term.weight / m) * jnp.exp(0.5 * log_weight)
    return jnp.broadcast_to(amplitudes, (m,)), frequencies, tuple(lattices)


def _merged(waves: list[Wave]) -> tuple[Wave, ...]:
    """The same waves, those of equal periods in one set."""
    groups: dict[Any, list[Wave]] = {}
    for amplitudes, frequencies, lattices in waves:
        same = frequencies is None, tuple(id(period) for period, _ in lattices)
        groups.setdefault(same, []).append((amplitudes, frequencies, lattices))
    join = lambda *parts: jnp.concatenate(parts, axis=0)
    merged: list[Wave] = []
    for group in groups.values():
        periods = [period for period, _ in group[0][2]]
        amplitudes, frequencies, multiples = jax.tree.map(
            join, *((wave[0], wave[1], [each for _, each in wave[2]]) for wave in group)
        )
        merged.append((amplitudes, frequencies, tuple(zip(periods, multiples, strict=True))))
    return tuple(merged)


@jax.jit
def _features(phi: RandomFeatures, X: Array) -> Matrix:
    _inputs.check_dtype(X.dtype, "X")
    dtype = _inputs.common_dtype(X, *jax.tree.leaves(phi))
    points = (X if X.ndim > 1 else X[:, None]).astype(dtype)
    phi = jax.tree.map(lambda leaf: leaf.astype(dtype), phi)
    clean = _padding.clean(points, None)[0]
    n = clean.shape[0]
    columns = [_columns(wave, clean) for wave in phi.waves]
    for (scale, offset), dims in zip(phi.lines, phi.line_dims, strict=True):
        own = jnp.stack([clean[:, dim] for dim in dims], axis=1)
        columns.append(scale[None, :] * (own - offset[None, :]))
    columns.append(jnp.broadcast_to(phi.constants[None, :], (n, phi.constants.shape[0])))
    used = sum(part.shape[1] for part in columns)
    values = jnp.concatenate([*columns, jnp.zeros((n, phi.count - used), dtype)], axis=1)
    return jnp.where(jnp.isfinite(points).all(axis=1, keepdims=True), values, jnp.nan)


def _columns(wave: Wave, X: Points) -> Array:
    """Two columns for each wave: amplitude cos and amplitude sin of 2 pi f . x."""
    amplitudes, frequencies, lattices = wave
    count = jnp.zeros((), X.dtype)
    if frequencies is not None:
        count = count + _cycles(X, frequencies)
    for period, multiples in lattices:
        # Whole periods come off exactly, however far from 0.
        count = count + _cycles(remainder(X, period[None, :]) / period[None, :], multiples)
    return jnp.concatenate([amplitudes[None, :] * part for part in both_waves(count)], axis=1)


def _cycles(X: Points, frequencies: Array) -> Array:
    """X . f for each row of X and each frequency, up to whole numbers."""
    d = X.shape[1]
    if d > MOST_UNROLLED:
        return fraction(jnp.matmul(X, frequencies.T, precision="highest"))
    total = jnp.zeros((), X.dtype)
    for j in range(d):
        total = fraction(total + cycles(X[:, j][:, None], frequencies[:, j][None, :]))
    return total
