"""The posterior of many observations, from solves instead of a factorisation."""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from .._inputs import common_dtype
from .._memory import check_memory
from .._module import Structure, flatten, prepared
from .._typing import ArrayLike, Key, NanOption, Shape
from ..calculus import Identity
from ..calculus._apply import AppliedKernel, as_operator, cast
from ..kernels._diagonal import add_to_diagonal
from ..kernels._gram import covariance, variances
from ..matrixfree import Estimate, Iterative
from ..matrixfree._tiles import tiled_product
from . import _iterative as core
from ._blocks import prior_mean
from ._data import (
    Data,
    as_inputs,
    as_key,
    as_shape,
    check_dimension,
    clean_inputs,
    joined,
    values_data,
)
from ._process import GaussianProcess

# Test points whose features and covariances are held at once.
BATCH = 1 << 12


class Known(eqx.Module):
    """A posterior as compiled code is given it."""

    gp: Any
    data: Data
    state: core.State


class IterativePosterior(eqx.Module):
    """A Gaussian process conditioned on observations by iteration: nothing n x n is ever held.

    Made by `GaussianProcess.condition` with an `Iterative` solver. Means are exact up to
    ``residual``, the largest relative residual of the solves. Variances are the mean square of
    ``solver.probes`` draws around the mean, with a relative standard error of sqrt(2 / probes);
    `sample` hands out these draws. For kernels without random features, and in `covariance`, they
    come from a solve for each test point. Test points, padding and results are as in `Posterior`.
    """

    __slots__ = ("_flat",)

    gp: GaussianProcess
    data: Data
    state: core.State
    plan: core.Plan = eqx.field(static=True)
    solver: Iterative = eqx.field(static=True)
    reason: str = eqx.field(static=True)

    __getattribute__ = object.__getattribute__

    def __repr__(self) -> str:
        return f"IterativePosterior({self.gp!r}, X of shape {np.shape(self.data.X)})"

    @property
    def residual(self) -> Array:
        """The largest relative residual |b - K x| / |b| of the solves, computed at their end."""
        return jnp.max(self.state.residual)

    @property
    def weights(self) -> Array:
        """(K + noise)^-1 (y - m(X))."""
        return self.state.weights

    @property
    def log_marginal_likelihood(self) -> Array:
        """log N(y; mean(X), K(X, X) + noise), estimated: see `likelihood_estimate`."""
        return self.likelihood_estimate().value

    def likelihood_estimate(self) -> Estimate:
        """The log marginal likelihood by stochastic Lanczos quadrature, with its standard error."""
        found: Estimate = _value(*self._compiled(), self.plan, core.key_of(self.solver))
        return found

    def mean(self, Xs: ArrayLike, *, operator: Any = None) -> Array:
        """E[f(Xs) | y], or of what ``operator`` makes of f: (m,), or (m, q) for q components."""
        own = Identity() if operator is None else as_operator(operator, "operator")
        if self.data.shift is not None and not own.invariant:
            own = own.moved(jnp.asarray(self.data.shift))
        points, finite = self._points(Xs)
        values: Array = _mean(*self._compiled(), self.plan, *flatten(own), points, finite)
        return self._shaped(values[:, 0] if values.shape[1] == 1 else values)

    def variance(self, Xs: ArrayLike, *, observation: bool = False) -> Array:
        """Var[f(Xs) | y] from the draws; without random features from a solve per test point."""
        self._check_noise(observation)
        points, finite = self._points(Xs)
        if self.plan.sampled:
            spread = _draws(*self._compiled(), self.plan, points, finite, False)
            values = jnp.mean(jnp.square(spread), axis=1)
        else:
            C = self.covariance(Xs)
            values = jnp.maximum(jnp.diagonal(C), 0.0)
        if observation:
            values = values + _noise(*self._compiled(), points)
        return self._shaped(values)

    def covariance(self, Xs: ArrayLike, *, observation: bool = False) -> Array:
        """Cov[f(Xs) | y], (m, m), from a solve for each test point: to the tolerance, not a mean
        over draws."""
        self._check_noise(observation)
        points, finite = self._points(Xs)
        n, m = self.data.rows, len(points)
        check_memory("solving for the test points", 8 * n * m * points.dtype.itemsize, _FEWER)
        C: Array = _covariance(
            *self._compiled(), self.plan, core.key_of(self.solver), points, finite
        )
        return add_to_diagonal(C, _noise(*self._compiled(), points)) if observation else C

    def sample(
        self, key: Key, Xs: ArrayLike, shape: Shape = (), *, observation: bool = False
    ) -> Array:
        """Joint draws of f(Xs) given y, shape + (m,): a choice of the ``probes`` there are, none
        of them twice in one call."""
        self._check_noise(observation)
        key, shape = as_key(key), as_shape(shape)
        count = math.prod(shape)
        if not self.plan.sampled or count > self.solver.probes:
            raise ParameterError(
                f"{count} draws were asked for, and this posterior has "
                f"{self.solver.probes if self.plan.sampled else 0}"
                f"{'' if self.plan.sampled else ', since its kernel has no random features'}. "
                "Fix: condition with Iterative(probes=...) of as many, or use Dense()."
            )
        points, finite = self._points(Xs)
        values = _draws(*self._compiled(), self.plan, points, finite, True)
        chosen = jax.random.choice(key, self.solver.probes, (count,), replace=False)
        draws = values[:, chosen].T
        if observation:
            own = jax.random.normal(jax.random.fold_in(key, 1), draws.shape, draws.dtype)
            draws = draws + jnp.sqrt(_noise(*self._compiled(), points))[None, :] * own
        return self._shaped(draws.reshape(*shape, len(points)))

    def update(
        self,
        X_new: ArrayLike,
        y_new: Any,
        *,
        mask: ArrayLike | None = None,
        nan: NanOption = "pad",
    ) -> "IterativePosterior":
        """The posterior with further observations: solved anew from where it was."""
        if self.gp.noise_variance.ndim:
            raise ParameterError(
                "`update` of an iterative posterior is for one noise variance, and here is one "
                "per point. Fix: condition on all observations again."
            )
        new = values_data(self.gp, X_new, y_new, mask, nan)
        check_dimension(self.data, new.X, X_new, "X_new")
        both = joined(self.data, new)
        zeros = jnp.zeros((new.rows, 1 + self.solver.probes), self.state.weights.dtype)
        start = jnp.concatenate([self.state.solutions, zeros])
        return condition(self.gp, both, self.plan, self.solver, self.reason, start)

    def _points(self, Xs: Any) -> tuple[Array, bool]:
        points, finite = as_inputs(self.gp, Xs, self.data.shift, "Xs")
        check_dimension(self.data, points, Xs, "Xs")
        return points, finite

    def _check_noise(self, observation: bool) -> None:
        if observation and self.gp.noise_variance.ndim:
            raise ParameterError(
                "`observation=True` with one `noise_variance` per training point: the noise of "
                "the new points is not known. Fix: add it to the latent variance yourself."
            )

    def _compiled(self) -> tuple[Structure, tuple[Array, ...]]:
        try:
            found: tuple[Structure, tuple[Array, ...]] = object.__getattribute__(self, "_flat")
        except AttributeError:
            found = flatten(Known(self.gp, self.data.compiled, self.state))
            object.__setattr__(self, "_flat", found)
        return found

    def _shaped(self, values: Array) -> Array:
        return values[..., None] if self.data.column else values


_FEWER = "pass fewer test points at a time"


def condition(
    gp: GaussianProcess,
    data: Data,
    plan: core.Plan,
    solver: Iterative,
    reason: str,
    start: Array | None = None,
) -> IterativePosterior:
    """Solve, and report: the work behind `GaussianProcess.condition`."""
    state = core.condition_state(
        *flatten(core.plain(gp)), data.compiled, plan, core.key_of(solver), start
    )
    core.report(plan, jnp.max(state.residual), state.steps, state.indefinite)
    return IterativePosterior(gp, data, state, plan, solver, reason)


# --- compiled ----------------------------------------------------------------------------------


def _at(structure: Structure, leaves: tuple[Array, ...], plan: core.Plan, *others: Array) -> Any:
    dtype = common_dtype(*leaves, *others)
    known = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )
    return known, core.observed(known.gp, known.data, plan.where)


def _batched(function: Any, points: Array) -> Array:
    """Rows of ``function`` of test points, batch by batch."""
    if len(points) <= BATCH:
        values: Array = function(points)
        return values
    index = jnp.minimum(jnp.arange(-(-len(points) // BATCH) * BATCH), len(points) - 1)
    blocks = points[index].reshape(-1, BATCH, points.shape[1])
    stacked = jax.lax.map(function, blocks)
    return stacked.reshape(-1, *stacked.shape[2:])[: len(points)]


@partial(jax.jit, static_argnames=("structure", "plan"))
def _value(
    structure: Structure, leaves: tuple[Array, ...], plan: core.Plan, key: Array
) -> Estimate:
    known, at = _at(structure, leaves, plan)
    return core.value(at, plan, key, known.state.weights)


@partial(jax.jit, static_argnames=("structure", "plan", "own", "finite"))
def _mean(
    structure: Structure, leaves: tuple[Array, ...], plan: core.Plan,
    own: Structure, own_leaves: tuple[Array, ...], Xs: Array, finite: bool,
) -> Array:  # fmt: skip
    known, at = _at(structure, leaves, plan, Xs)
    dtype = at.residual.dtype
    operator = cast(own.rebuild(own_leaves), dtype)
    points, real = clean_inputs(Xs.astype(dtype), finite, None)
    kernel = prepared(at.gp.kernel, dtype)
    if not isinstance(operator, Identity):
        kernel = AppliedKernel(kernel, operator, Identity())
    X, weights = at.operator.X, known.state.weights
    if at.real is not None:
        weights = weights * at.real
    values = tiled_product(kernel, points, X, weights[:, None]).reshape(len(points), -1)
    values = values + prior_mean(at.gp.mean, operator, points)
    return values if real is None else jnp.where(real[:, None], values, jnp.nan)


@partial(jax.jit, static_argnames=("structure", "plan", "finite", "centred"))
def _draws(
    structure: Structure, leaves: tuple[Array, ...], plan: core.Plan,
    Xs: Array, finite: bool, centred: bool,
) -> Array:  # fmt: skip
    """Draws at test points (m, s), of f or, without ``centred``, of f less its mean."""
    known, at = _at(structure, leaves, plan, Xs)
    points, real = clean_inputs(Xs.astype(at.residual.dtype), finite, None)
    kernel, state = prepared(at.gp.kernel, at.residual.dtype), known.state
    sides = -state.draws
    if centred:
        sides = state.weights[:, None] + sides
    if at.real is not None:
        sides = sides * at.real[:, None]

    def block(points: Array) -> Array:
        prior = core.function_values(state.prior, points)
        return prior + tiled_product(kernel, points, at.operator.X, sides)

    values = _batched(block, points)
    if centred:
        values = values + prior_mean(at.gp.mean, Identity(), points)
    return values if real is None else jnp.where(real[:, None], values, jnp.nan)


@partial(jax.jit, static_argnames=("structure", "plan", "finite"))
def _covariance(
    structure: Structure,
    leaves: tuple[Array, ...],
    plan: core.Plan,
    key: Array,
    Xs: Array,
    finite: bool,
) -> Array:
    _, at = _at(structure, leaves, plan, Xs)
    points, real = clean_inputs(Xs.astype(at.residual.dtype), finite, None)
    kernel = prepared(at.gp.kernel, at.residual.dtype)
    K = kernel.matrix(at.operator.X, points)
    if at.real is not None:
        K = K * at.real[:, None]
    explained = jnp.matmul(K.T, core.solve_sides(at, plan, key, K).values, precision="highest")
    C = covariance(kernel, points, noise=False) - 0.5 * (explained + explained.T)
    return C if real is None else jnp.where(real[:, None] & real[None, :], C, jnp.nan)


@partial(jax.jit, static_argnames=("structure",))
def _noise(structure: Structure, leaves: tuple[Array, ...], Xs: Array) -> Array:
    """The variance of an observation beyond that of the function."""
    gp = structure.rebuild(leaves).gp
    dtype = common_dtype(Xs, *leaves)
    gp, points = prepared(gp, dtype), Xs.astype(dtype)
    white = variances(gp.kernel, points) - variances(gp.kernel, points, noise=False)
    total: Array = white + gp.noise_variance
    return total
