"""Likelihoods and posteriors by iteration: compiled computations that never form the matrix.

One set of solves serves everything: of the residual y - m, and of draws z of the prior with noise.
Since E[u u'] = K^-1 for u = K^-1 z, the gradient of the log likelihood is that of

    1/2 a' K a - 1/(2 s) sum_j u_j' K u_j - a' (y - m),   a = K^-1 (y - m),

with a and u held, whose first two terms are one bilinear form; and z - u is what makes draws of
the posterior of those of the prior. Nothing is differentiated through an iteration.

For kernels without random features, z are signs: then E[z z'] = 1, and the trace is the mean of
u_j' K z_j. Lin et al. (2024), arXiv 2405.18457.
"""

import dataclasses
import warnings
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ConvergenceWarning, NotPSDError, ParameterError
from .._inputs import common_dtype
from .._module import Structure, flatten, with_fields
from ..kernels import RandomFeatures, random_features
from ..linalg._dense import LOG_2PI
from ..matrixfree import (
    Estimate,
    Iterative,
    KernelOperator,
    Solution,
    conjugate_gradients,
    log_determinant,
    preconditioner,
)
from ..matrixfree._solver import room_for
from ._data import Data, clean_inputs, prepared_gp
from ._means import evaluate_mean

# From this tolerance on solves believe their recurrence.
LOOSE = 1e-3

# Answers by structure of the kernel, dimension and number: to ask takes a trace.
_HAS_FEATURES: dict[Any, bool] = {}


class Plan(NamedTuple):
    """What an iterative computation is compiled for."""

    solver: Iterative
    where: tuple[Any, str | None]  # the mesh that the rows are shared out over, and its axis
    sampled: bool  # the kernel has random features
    stored: bool  # there is room for the matrix itself
    tolerance: float


class Observed(NamedTuple):
    """Observations as the arithmetic wants them."""

    gp: Any
    operator: KernelOperator
    residual: Array  # y - mean, 0 at padding
    real: Array | None  # 1 or 0

    @property
    def rows(self) -> Array:
        """How many are real."""
        n = self.residual.shape[0]
        return jnp.asarray(n, self.residual.dtype) if self.real is None else jnp.sum(self.real)


class Prior(eqx.Module):
    """Draws of the prior as functions, phi(x) w."""

    phi: RandomFeatures
    weights: Array  # (features, s)


class State(eqx.Module):
    """What the solves leave."""

    weights: Array  # a = K^-1 (y - m)
    draws: Array  # u = K^-1 z, (n, s)
    prior: Prior | None  # of the draws; None for signs
    residual: Array  # relative, of the weights and of each draw, (1 + s,)
    steps: Array
    indefinite: Array

    @property
    def solutions(self) -> Array:
        """The weights and the draws side by side: where another solve may start."""
        return jnp.concatenate([self.weights[:, None], self.draws], axis=1)


def plan_of(gp: Any, solver: Iterative, X: Any, tolerance: float | None = None) -> Plan:
    """How to go about observations at X, which may be shared out over devices."""
    dtype = common_dtype(X, *flatten(gp)[1])
    own = solver.tolerance_in(dtype) if tolerance is None else tolerance
    # The seed is no part of what is compiled.
    fixed, where = dataclasses.replace(solver, seed=0), mesh_of(X)
    fits = where[0] is None and room_for(solver, X.shape[0], np.dtype(dtype).itemsize)
    return Plan(fixed, where, has_features(gp.kernel, X.shape[-1], solver), fits, own)


def plain(gp: Any) -> Any:
    """The process without its solver, which a plan has."""
    return with_fields(gp, solver="auto")


def key_of(solver: Iterative) -> Array:
    """Of all that is random in a solver's computations."""
    return jax.random.key(solver.seed)


def mesh_of(X: Any) -> tuple[Any, str | None]:
    """The mesh and the axis over which an array's rows are shared out, or (None, None)."""
    sharding: Any = None if isinstance(X, jax.core.Tracer) else getattr(X, "sharding", None)
    spec = getattr(sharding, "spec", None)
    if spec is None or not len(spec) or spec[0] is None:
        return None, None
    axis = spec[0][0] if isinstance(spec[0], tuple) else spec[0]
    return (sharding.mesh, axis) if sharding.mesh.shape[axis] > 1 else (None, None)


def has_features(kernel: Any, d: int, solver: Iterative) -> bool:
    """Whether random functions can be drawn from the kernel."""
    question = (flatten(kernel)[0], d, solver.features)
    if question not in _HAS_FEATURES:
        draw = lambda: random_features(jax.random.key(0), kernel, d, solver.features)
        try:
            jax.eval_shape(draw)
            _HAS_FEATURES[question] = True
        except ParameterError:
            _HAS_FEATURES[question] = False
    return _HAS_FEATURES[question]


def observed(gp: Any, data: Data, where: tuple[Any, str | None]) -> Observed:
    """The observations, with the operator K + noise."""
    gp, X = prepared_gp(gp, data.X, data.y)
    X, rows = clean_inputs(X, data.finite, data.mask)
    y, real = data.y.astype(X.dtype), None if rows is None else rows.astype(X.dtype)
    mean = evaluate_mean(gp.mean, X)
    residual = y - mean if rows is None else jnp.where(rows, jnp.where(rows, y, 0.0) - mean, 0.0)
    operator = KernelOperator.made(gp.kernel, X, gp.noise_variance, real, where)
    return Observed(gp, operator, residual, real)


def random_sides(at: Observed, plan: Plan, key: Array) -> tuple[Array, Prior | None]:
    """Draws z (n, s) of the prior with its noise, or signs; 0 at padding."""
    solver, n, dtype = plan.solver, at.operator.size, at.residual.dtype
    keys = jax.random.split(key, 3)
    s, prior = solver.probes, None
    if plan.sampled:
        phi = random_features(keys[0], at.gp.kernel, at.operator.X.shape[1], solver.features)
        w = jax.random.normal(keys[1], (phi.count, s), dtype)
        white = jax.random.normal(keys[2], (n, s), dtype)
        prior = Prior(phi, w)
        noise = jnp.sqrt(at.operator.noise())[:, None] * white
        z = function_values(prior, at.operator.X) + noise
    else:
        z = jax.random.rademacher(keys[1], (n, s), dtype)
    return (z if at.real is None else z * at.real[:, None]), prior


def function_values(prior: Prior, X: Array) -> Array:
    """The functions of the prior at points, (m, s)."""
    features = prior.phi.features(X).astype(prior.weights.dtype)
    return jnp.matmul(features, prior.weights, precision="highest")


def solve(at: Observed, plan: Plan, key: Array, start: Array | None = None) -> State:
    """All solves at once, from ``start`` (n, 1 + s) where there is one."""
    sides, prior = all_sides(at, plan, key)
    found = solve_sides(at, plan, key, sides, start)
    values = found.values
    return State(values[:, 0], values[:, 1:], prior, found.residual, found.steps, found.indefinite)


def all_sides(at: Observed, plan: Plan, key: Array) -> tuple[Array, Prior | None]:
    """The residual and the random sides, (n, 1 + s)."""
    z, prior = random_sides(at, plan, key)
    return jnp.concatenate([at.residual[:, None], z], axis=1), prior


def solve_sides(
    at: Observed, plan: Plan, key: Array, B: Array, start: Array | None = None
) -> Solution:
    """K^-1 B with the plan's preconditioner, tolerance and budget."""
    operator = at.operator.stored() if plan.stored else at.operator
    P = preconditioner(operator, plan.solver.rank, jax.random.fold_in(key, 1))
    return conjugate_gradients(
        operator,
        B,
        P,
        start=start,
        tolerance=plan.tolerance,
        max_steps=plan.solver.max_steps,
        restarts=plan.tolerance < LOOSE,
    )


def surrogate(
    gp: Any, data: Data, plan: Plan, key: Array, weights: Array, draws: Array
) -> tuple[Array, Array]:
    """A function of the process whose gradient is that of the log likelihood, estimated, and the
    product of the matrix with the weights and draws, or signs, that it is made of."""
    at = observed(gp, data, plan.where)
    s = draws.shape[1]
    right = draws if plan.sampled else jax.lax.stop_gradient(random_sides(at, plan, key)[0])
    left = jnp.concatenate([0.5 * weights[:, None], (-0.5 / s) * draws], axis=1)
    right = jnp.concatenate([weights[:, None], right], axis=1)
    product = at.operator.product(right)
    return jnp.sum(left * product) - jnp.sum(weights * at.residual), product


def value(at: Observed, plan: Plan, key: Array, weights: Array) -> Estimate:
    """log N(y; m, K), and the standard error of its log determinant's half."""
    solver = plan.solver
    keys = jax.random.split(jax.random.fold_in(key, 2))
    operator = at.operator.stored() if plan.stored else at.operator
    P = preconditioner(operator, solver.rank, keys[0])
    log_det = log_determinant(operator, P, keys[1], probes=solver.probes, steps=solver.quadrature)
    square = jnp.sum(at.residual * weights)
    total = square + log_det.value + at.rows * LOG_2PI
    return Estimate(-0.5 * total, 0.5 * log_det.error)


class Likelihood(NamedTuple):
    """An estimate of a log likelihood, and how its solves went."""

    value: Array
    error: Array
    residual: Array
    steps: Array
    indefinite: Array


@partial(jax.jit, static_argnames=("structure", "plan"), inline=True)
def log_likelihood(
    structure: Structure, leaves: tuple[Array, ...], data: Data, plan: Plan, key: Array
) -> Likelihood:
    """The log marginal likelihood, with the gradient of frozen draws in reverse mode."""

    def own(X: Array, y: Array, mask: Array | None) -> Data:
        return dataclasses.replace(data, X=X, y=y, mask=mask)

    def forward(*arguments: Any) -> tuple[Likelihood, Any]:
        leaves, *arrays, key = arguments
        at = observed(structure.rebuild(leaves), own(*arrays), plan.where)
        state = solve(at, plan, key)
        found = value(at, plan, key, state.weights)
        failed = state.indefinite | ~jnp.isfinite(found.value)
        total = jnp.where(failed, jnp.nan, found.value)
        worst = jnp.max(state.residual)
        result = Likelihood(total, found.error, worst, state.steps, state.indefinite)
        return result, (arguments, state.weights, state.draws)

    def backward(kept: Any, cotangent: Likelihood) -> Any:
        (leaves, X, y, mask, key), weights, draws = kept

        def of(leaves: tuple[Array, ...], X: Array, y: Array) -> Array:
            gp, changed = structure.rebuild(leaves), own(X, y, mask)
            return surrogate(gp, changed, plan, key, weights, draws)[0]

        slopes = jax.grad(of, argnums=(0, 1, 2), allow_int=True)(leaves, X, y)
        scale = lambda v: v if v.dtype == jax.dtypes.float0 else cotangent.value * v
        return *jax.tree.map(scale, slopes), None, None

    estimate = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    estimate.defvjp(forward, backward)
    return estimate(leaves, data.X, data.y, data.mask, key)


@partial(jax.jit, static_argnames=("structure", "plan"))
def condition_state(
    structure: Structure,
    leaves: tuple[Array, ...],
    data: Data,
    plan: Plan,
    key: Array,
    start: Array | None = None,
) -> State:
    """The solves of a posterior."""
    return solve(observed(structure.rebuild(leaves), data, plan.where), plan, key, start)


def likelihood_of(gp: Any, data: Data, plan: Plan, key: Array) -> Likelihood:
    """`log_likelihood` of a process."""
    structure, leaves = flatten(plain(gp))
    found: Likelihood = log_likelihood(structure, leaves, data.compiled, plan, key)
    return found


def report(plan: Plan, residual: Any, steps: Any, indefinite: Any) -> None:
    """The eager end of a solve: raise where the matrix is indefinite, warn where it is not done."""
    if any(isinstance(found, jax.core.Tracer) for found in (residual, steps, indefinite)):
        return
    if bool(indefinite):
        raise NotPSDError(
            "conjugate gradients met a direction of negative curvature: K + noise is not positive "
            "semi-definite in this precision. Fix: add noise, or enable x64."
        )
    if not float(residual) <= 1.1 * plan.tolerance:
        warnings.warn(
            f"the solves came to a relative residual of {float(residual):.2g} after "
            f"{int(steps)} products, and {plan.tolerance:.2g} was asked for. "
            "Fix: more `max_steps` or `rank` in Iterative(...), or more noise.",
            ConvergenceWarning,
            stacklevel=4,
        )
