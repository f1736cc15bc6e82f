"""The posterior: a Gaussian process given observations."""

import warnings
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import NumericalWarning, ParameterError, ShapeError
from .._inputs import common_dtype
from .._module import Structure, field_values, flatten, prepared, rebuild_fields
from .._typing import ArrayLike, Key, Scalar, Shape
from ..kernels import AbstractKernel
from ..kernels._gram import covariance, variances
from ..linalg import cholesky, status_of, whiten
from ..linalg._dense import _value
from ..linalg._mvn import report
from ._data import Data, as_inputs, as_key, as_shape, clean_inputs, mark_rows, prepared_gp, system
from ._means import evaluate_mean
from ._process import GaussianProcess, draw, indefinite


class Posterior(eqx.Module):
    """A Gaussian process conditioned on observations, with its factorisation.

    Made by `GaussianProcess.condition`. Predictions speak of the latent function, white noise in
    the kernel left out; ``observation=True`` adds it and ``noise_variance``. ``kernel=part``
    predicts one part of a sum alone, without the mean function. Test points are (m, d) or (m,);
    a row with NaN gives NaN. Means, variances and samples come in the form of y: (m,) or (m, 1).

    ``jitter`` is what was added to the diagonal (0 unless needed), ``status`` a `kernax.Status`.
    """

    __slots__ = ("_flat",)

    gp: GaussianProcess
    data: Data
    factor: Array
    weights: Array
    log_marginal_likelihood: Scalar
    jitter: Scalar
    status: Array

    __getattribute__ = object.__getattribute__

    def mean(self, Xs: ArrayLike, *, kernel: Any = None) -> Array:
        """E[f(Xs) | y] = m(Xs) + K(Xs, X) (K + noise)^-1 (y - m(X))."""
        values: Array = self._predict(_mean, Xs, kernel)
        return self._shaped(values)

    def variance(
        self,
        Xs: ArrayLike,
        *,
        observation: bool = False,
        kernel: Any = None,
    ) -> Array:
        """Var[f(Xs) | y] = k(Xs, Xs) - diag(K(Xs, X) (K + noise)^-1 K(X, Xs)), never negative."""
        values, worst = self._predict(_variance, Xs, kernel, observation=observation)
        if not isinstance(worst, jax.core.Tracer) and worst > 100.0:
            n, eps = self.factor.shape[0], float(np.finfo(values.dtype).eps)
            warnings.warn(
                f"a predictive variance came out negative, by {float(worst) * n * eps:.3g} of the "
                "prior variance, and was set to 0. Fix: add noise, or enable x64.",
                NumericalWarning,
                stacklevel=2,
            )
        return self._shaped(values)

    def covariance(
        self,
        Xs: ArrayLike,
        *,
        observation: bool = False,
        kernel: Any = None,
    ) -> Array:
        """Cov[f(Xs) | y], (m, m): K(Xs, Xs) - K(Xs, X) (K + noise)^-1 K(X, Xs)."""
        C: Array = self._predict(_covariance, Xs, kernel, observation=observation)[0]
        return C

    def sample(
        self,
        key: Key,
        Xs: ArrayLike,
        shape: Shape = (),
        *,
        observation: bool = False,
    ) -> Array:
        """Joint draws of f(Xs) given y, shape + (m,)."""
        draws, jitter = self._predict(
            _draws, Xs, None, observation=observation, key=as_key(key), shape=as_shape(shape)
        )
        gram = partial(self.covariance, observation=observation)
        report(jitter, jitter, lambda: indefinite(gram, jnp.asarray(Xs)), quiet=True)
        return self._shaped(draws)

    def _predict(self, function: Any, Xs: Any, kernel: Any, **options: Any) -> Any:
        if options.get("observation") and self.gp.noise_variance.ndim:
            raise ParameterError(
                "`observation=True` with one `noise_variance` per training point: the noise of "
                "the new points is not known. Fix: add it to the latent variance yourself."
            )
        if kernel is not None and not isinstance(kernel, AbstractKernel):
            raise ParameterError(
                f"`kernel` is {kernel!r}, expected a kernel, one part of that of the process. "
                "Fix: pass for instance posterior.gp.kernel.left_kernel."
            )
        structure, leaves = self._compiled()
        points, finite = as_inputs(Xs, self.data.shift, "Xs")
        d = self.data.X.shape[1]
        if points.shape[1] != d:
            raise ShapeError(
                f"`Xs` has dimension {points.shape[1]} (shape {jnp.shape(Xs)}), but the process "
                f"was conditioned on points of dimension {d}. Fix: pass (m, {d})"
                f"{', or (m,)' if d == 1 else ', one row per point'}."
            )
        part, part_leaves = (None, ()) if kernel is None else flatten(kernel)
        facts, arrays = _Facts(structure, finite, part), _Arrays(leaves, points, part_leaves)
        return function(facts, arrays, **options)

    def _compiled(self) -> tuple[Structure, tuple[Array, ...]]:
        """What compiled code is given, remembered; another shift compiles nothing again."""
        try:
            found: tuple[Structure, tuple[Array, ...]] = object.__getattribute__(self, "_flat")
        except AttributeError:
            values = field_values(self) | {"data": self.data.compiled}
            found = flatten(rebuild_fields(Posterior, values))
            object.__setattr__(self, "_flat", found)
        return found

    def __reduce__(self) -> Any:
        return rebuild_fields, (type(self), field_values(self))

    def _shaped(self, values: Array) -> Array:
        return values[..., None] if self.data.column else values


def condition(gp: GaussianProcess, data: Data) -> Posterior:
    """Factorise, solve, and report: the work behind `GaussianProcess.condition`."""
    structure, leaves = flatten(gp)
    L, weights, value, jitter, status = _condition(structure, leaves, data.compiled)
    report(value, jitter, lambda: gp._failure(data))
    return Posterior(gp, data, L, weights, value, jitter, status)


@partial(jax.jit, static_argnames=("structure",))
def _condition(structure: Structure, leaves: tuple[Array, ...], data: Data) -> Any:
    K, residual, count, scale, _ = system(structure.rebuild(leaves), data)
    L, jitter = cholesky(K, count, scale)
    whitened = whiten(L, residual)
    value = _value(L, whitened, count)
    weights = whiten(L, whitened, transpose=True)
    return L, weights, value, jitter, status_of(value, jitter, count)


class _Facts(NamedTuple):
    """What a prediction is compiled for."""

    structure: Structure  # of the posterior
    finite: bool  # the test points are known to hold no padding
    part: Structure | None  # of the kernel that predicts, where it is not the whole


class _Arrays(NamedTuple):
    """What a prediction is computed from."""

    leaves: tuple[Array, ...]
    Xs: Array
    part_leaves: tuple[Array, ...]


class _Cross(NamedTuple):
    """What every prediction starts from, all in one floating dtype."""

    posterior: Posterior
    gp: GaussianProcess  # prepared, and so is the kernel that predicts: the whole or a part
    kernel: AbstractKernel
    points: Array  # clean test points, and which of them are real: None where all are
    real: Array | None
    K: Array  # K(X, Xs), zero where X is padding


def _cross(facts: _Facts, arrays: _Arrays) -> _Cross:
    (structure, finite, part), (leaves, Xs, part_leaves) = facts, arrays
    dtype = common_dtype(Xs, *leaves, *part_leaves)
    posterior: Posterior = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )
    gp, points = prepared_gp(posterior.gp, Xs, posterior.factor)
    kernel = gp.kernel if part is None else prepared(part.rebuild(part_leaves), dtype)
    points, real = clean_inputs(points, finite, None)
    data = posterior.data
    X, known = clean_inputs(data.X.astype(dtype), data.finite, data.mask)
    K = kernel.matrix(X, points) if X.shape[0] else jnp.zeros((0, len(points)), dtype)
    K = K if known is None else jnp.where(known[:, None], K, 0.0)
    return _Cross(posterior, gp, kernel, points, real, K)


@partial(jax.jit, static_argnames=("facts",))
def _mean(
    facts: _Facts,
    arrays: _Arrays,
) -> Array:
    at = _cross(facts, arrays)
    values = jnp.matmul(at.posterior.weights, at.K, precision="highest")
    values = values + evaluate_mean(at.gp.mean, at.points) if facts.part is None else values
    return mark_rows(values, at.real)


@partial(jax.jit, static_argnames=("facts", "observation"))
def _variance(
    facts: _Facts,
    arrays: _Arrays,
    observation: bool,
) -> tuple[Array, Array]:
    at = _cross(facts, arrays)
    prior = variances(at.kernel, at.points, noise=False)
    latent = prior - jnp.sum(jnp.square(whiten(at.posterior.factor, at.K)), axis=0)
    unit = at.K.shape[0] * jnp.finfo(at.K.dtype).eps * prior
    worst = jnp.max(jnp.where(unit > 0, -latent / unit, 0.0), initial=0.0)
    values = jnp.maximum(latent, 0.0)
    if observation:
        values = values + variances(at.kernel, at.points) - prior + at.gp.noise_variance
    return mark_rows(values, at.real), worst


@partial(jax.jit, static_argnames=("facts", "observation"))
def _covariance(
    facts: _Facts,
    arrays: _Arrays,
    observation: bool,
) -> tuple[Array, Array]:
    at = _cross(facts, arrays)
    m = len(at.points)
    half = whiten(at.posterior.factor, at.K)
    explained = jnp.matmul(half.T, half, precision="highest")
    # The product may round its two triangles differently.
    explained = jnp.where(jnp.tri(m, dtype=bool), explained, explained.T)
    C = covariance(at.kernel, at.points, noise=observation) - explained
    if observation:
        C = C + at.gp.noise_variance * jnp.eye(m, dtype=C.dtype)
    scale = jnp.mean(variances(at.kernel, at.points)) if m else jnp.ones((), C.dtype)
    if at.real is not None:
        C = jnp.where(at.real[:, None] & at.real[None, :], C, jnp.nan)
    return C, scale


@partial(jax.jit, static_argnames=("facts", "observation", "shape"))
def _draws(
    facts: _Facts,
    arrays: _Arrays,
    observation: bool,
    key: Array,
    shape: tuple[int, ...],
) -> tuple[Array, Array]:
    Xs = arrays.Xs.astype(common_dtype(arrays.Xs, *arrays.leaves))
    points, real = clean_inputs(Xs, facts.finite, None)
    facts, arrays = facts._replace(finite=True), arrays._replace(Xs=points)
    mean = _mean(facts, arrays)
    C, scale = _covariance(facts, arrays, observation)
    draws, jitter = draw(key, mean, C, scale, shape)
    return mark_rows(draws, real), jitter
