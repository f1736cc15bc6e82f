"""Fitting where the likelihood comes from iterations: Adam, each solve starting from the last ones.

The random draws stay the same from step to step, so that the gradient is that of a fixed function
and the solutions move as smoothly as the hyperparameters do: the last three are carried on to the
next. The start is an exact fit of a random subset, which is near where all of the data will end.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ConvergenceWarning, NotPSDError, ParameterError
from .._module import Structure, flatten, with_fields, with_leaves
from .._typing import HostArray
from ..distributed import gather, load_checkpoint, save_checkpoint
from ..linalg import Dense
from ..matrixfree import Estimate, Iterative, relative
from . import _iterative as core
from ._data import Data
from ._fit_result import FitResult
from ._free_space import FreeSpace
from ._priors import log_prior
from ._problem import Problem

# Rows of the exact fit that comes first.
SUBSET = 1000
# How far a step goes, in free space, from anywhere and from there; after so many half as far.
RATE, NEAR, HALVED = 0.1, 0.03, 30
# Done where no free coordinate moves by more than this in so many steps.
STILL, WINDOW = 0.02, 10
# Steps between checkpoints.
EVERY = 5
# The relative residual that a gradient asks of its solves.
GRADIENT_TOLERANCE = 1e-2
# Solutions that are kept, and how far their moves are damped when they are carried on to the next
# point: they are as wrong as their tolerance, and large coefficients would make more of that.
KEPT, DAMPING = 3, 1e-3


class Walk(NamedTuple):
    """Where an iterative fit stands: a tree of arrays, so that it can be kept in a file."""

    u: Array  # free coordinates
    rate: Array  # how far a step goes at first
    adam: Any  # the state of optax.scale_by_adam
    solutions: Array  # (n, 1 + s, kept), of the last steps, the last one first
    points: Array  # (kept, k), the coordinates they belong to
    step: Array
    trail: Array  # (window, k): the last coordinates
    residual: Array  # the largest relative residual of the last solve
    products: Array  # with the matrix, in all
    norm: Array  # the largest derivative


def fit(
    problem: Problem,
    solver: Iterative,
    begin: Any,  # a Walk, where another fit ended
    u: HostArray,
    near: bool,
    *,
    max_steps: int,
    folder: Any,  # of checkpoints, or None
    report: Callable[[int, float], None],
) -> FitResult:
    """At most so many steps from free coordinates u, which may be ``near`` the end, or from where
    another fit ended."""
    sides = (problem.data.rows, 1 + solver.probes, KEPT)
    if begin is not None and not (isinstance(begin, Walk) and begin.solutions.shape == sides):
        raise ParameterError(
            "`resume` is no result of this iterative fit: of as many rows and probes. "
            "Fix: pass what the same call returned before."
        )
    state = first(problem, solver, u, NEAR if near else RATE) if begin is None else begin
    state, converged, interrupted = walk(problem, solver, state, max_steps, folder, report)
    fitted = problem.fitted(np.asarray(state.u)[None])
    loss, error = evaluate(fitted, problem, solver, state)
    message = f"no free coordinate moved by more than {STILL:g} in {WINDOW} steps"
    if not converged:
        message = f"stopped after {max_steps} steps"
        message = "interrupted: this is where it was" if interrupted else message
        warnings.warn(f"fit: {message}.", ConvergenceWarning, stacklevel=3)
    details = {
        "residual": float(state.residual),
        "products": int(state.products),
        "loss_error": error,
        "steps": int(state.step),
    }
    return FitResult(
        fitted,
        loss,
        history=np.asarray([loss]),
        converged=converged,
        message=message,
        gradient_norm=float(state.norm),
        losses=(loss,),
        interrupted=interrupted,
        runs=state,
        problem=problem,
        details=details,
    )


def kept(problem: Problem, solver: Iterative, folder: Any) -> Walk | None:
    """Where an earlier run was, from the newest checkpoint in a folder."""
    if folder is None:
        return None
    like = first(problem, solver, np.zeros(problem.space.size), RATE)
    found = load_checkpoint(folder, like=like)
    return None if found is None else found[1]


def walk(
    problem: Problem, solver: Iterative, state: Walk, max_steps: int, folder: Any, report: Any
) -> tuple[Walk, bool, bool]:
    """Steps from a state: the end, whether it converged, and whether Ctrl-C stopped it."""
    plan = gradient_plan(problem, solver)
    fixed = (problem.structure, problem.space, plan)
    arrays = (problem.leaves, problem.start, problem.priors, problem.data)
    last = int(state.step) + max_steps
    converged = not problem.space.size
    try:
        while int(state.step) < last and not converged:
            new, indefinite = _step(*fixed, *arrays, core.key_of(solver), state)
            if bool(indefinite):
                raise NotPSDError(
                    "conjugate gradients met a direction of negative curvature in a fit: K + noise "
                    "is not positive semi-definite in this precision. Fix: start from more noise."
                )
            state = new
            moves = np.ptp(np.asarray(state.trail), axis=0)
            converged = bool(np.max(moves) < STILL)
            step = int(state.step)
            if folder is not None and (step % EVERY == 0 or step == last or converged):
                save_checkpoint(folder, step, state)
            report(step, float(state.norm))
    except KeyboardInterrupt:
        return state, converged, True
    return state, converged, False


def gradient_plan(problem: Problem, solver: Iterative) -> core.Plan:
    """How the solves of a gradient are done."""
    tolerance = max(GRADIENT_TOLERANCE, solver.tolerance_in(problem.dtype))
    return core.plan_of(problem.gp, solver, problem.data.X, tolerance)


def first(problem: Problem, solver: Iterative, u: HostArray, rate: float) -> Walk:
    """Before the first step, at free coordinates u."""
    k, dtype = problem.space.size, problem.dtype
    sides = jnp.zeros((problem.data.rows, 1 + solver.probes, KEPT), dtype)
    at, count, zero = jnp.asarray(u, dtype), jnp.zeros((), int), jnp.zeros((), dtype)
    trail = jnp.full((WINDOW, k), jnp.finfo(dtype).max, dtype)  # far from where it will be
    rates, points = jnp.asarray(rate, dtype), jnp.tile(at, (KEPT, 1))
    walk = Walk(at, rates, _adam().init(at), sides, points, count, trail, zero, count, zero)
    sharding = getattr(problem.data.X, "sharding", None)
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return walk
    # Where a step will leave it, so that the second compiles nothing.
    placed = lambda *axes: jax.sharding.NamedSharding(
        sharding.mesh, jax.sharding.PartitionSpec(*axes)
    )
    where = jax.tree.map(lambda _: placed(), walk)._replace(solutions=placed(*sharding.spec[:1]))
    there: Walk = jax.device_put(walk, where)
    return there


def start_of(problem: Problem, held: frozenset[str], key: Array | None) -> HostArray:
    """Free coordinates after an exact fit of a random subset of the observations."""
    from ._fit import fit as fit_exactly

    gp, data = problem.gp, problem.data
    if gp.noise_variance.ndim:  # one per observation
        return problem.starts(0, key)[0]
    X, y = gather(data.X), gather(data.y)
    real = ~np.isnan(X).any(axis=1)
    rows = np.flatnonzero(real if data.mask is None else real & np.asarray(data.mask))
    key = jax.random.key(0) if key is None else key
    chosen = rows[np.asarray(jax.random.permutation(key, len(rows)))[:SUBSET]]
    exact = with_fields(gp, solver=Dense())
    options: dict[str, Any] = {"priors": problem.priors, "fixed": tuple(held), "progress": False}
    with warnings.catch_warnings():
        # What is strange in a subset may not be so in all of the data.
        warnings.simplefilter("ignore", ConvergenceWarning)
        near = fit_exactly(exact, X[chosen], y[chosen], **options).gp
    return problem.free_point(near.hyperparameters)


def evaluate(gp: Any, problem: Problem, solver: Iterative, state: Walk) -> tuple[float, float]:
    """The loss that `fit` reports, where ``gp`` is, and the standard error of its estimate."""
    plan = gradient_plan(problem, solver)
    structure, leaves = flatten(core.plain(gp))
    found = _value(structure, leaves, problem.data, plan, core.key_of(solver), state.solutions)
    values = problem.space.values(state.u, problem.start)
    total = -float(found.value)
    if problem.priors:
        total -= float(log_prior(problem.priors, values))
        own = frozenset(problem.priors)
        total -= float(problem.space.log_jacobian(state.u, problem.start, own))
    return total, float(found.error)


def check(restarts: int) -> None:
    """Errors for what an iterative fit does not do."""
    if restarts:
        raise ParameterError(
            "`restarts` are for exact fits; an iterative one starts from an exact fit of a "
            "subset. Fix: leave them out."
        )


def _adam() -> Any:
    import optax

    return optax.scale_by_adam()


@partial(jax.jit, static_argnames=("structure", "space", "plan"))
def _step(
    structure: Structure,
    space: FreeSpace,
    plan: core.Plan,
    leaves: tuple[Array, ...],
    start: dict[str, Array],
    priors: dict[str, Any],
    data: Data,
    key: Array,
    state: Walk,
) -> tuple[Walk, Array]:
    """One step of Adam down minus the log posterior."""
    gp = structure.rebuild(leaves)
    process = lambda u: with_leaves(gp, space.values(u, start))
    at = core.observed(process(state.u), data, plan.where)
    sides = core.all_sides(at, plan, key)[0]
    found = core.solve_sides(at, plan, key, sides, _carried_on(state))
    weights, draws = found.values[:, 0], found.values[:, 1:]

    def loss(u: Array) -> tuple[Array, Array]:
        total, product = core.surrogate(process(u), data, plan, key, weights, draws)
        if priors:
            total = total + log_prior(priors, space.values(u, start))
            total = total + space.log_jacobian(u, start, frozenset(priors))
        return -total, product

    slope, product = jax.grad(loss, has_aux=True)(state.u)
    # The true residual comes with the gradient where that multiplies the solutions themselves.
    residual = relative(sides - product, sides) if plan.sampled else found.residual
    slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
    with jax.numpy_dtype_promotion("standard"):
        move, adam = _adam().update(slope, state.adam)
    rate = state.rate / (1.0 + state.step.astype(move.dtype) / HALVED)
    u = state.u - rate * move
    solved = found.values[:, :, None]
    new = state._replace(
        u=u,
        adam=adam,
        solutions=jnp.concatenate([solved, state.solutions[:, :, :-1]], axis=2),
        points=jnp.concatenate([state.u[None], state.points[:-1]]),
        step=state.step + 1,
        trail=jnp.concatenate([state.trail[1:], u[None]]),
        residual=jnp.max(residual),
        products=state.products + found.steps,
        norm=jnp.max(jnp.abs(slope), initial=0.0),
    )
    return new, found.indefinite


def _carried_on(state: Walk) -> Array:
    """Where the solve at ``state.u`` starts: the solutions there, were they affine in u.

    u is written as u_1 + sum_j a_j (u_j - u_1) of the points before, as near as small a allow.
    """
    behind = jnp.arange(1, KEPT, dtype=state.step.dtype)
    D = jnp.where(behind < state.step, (state.points[1:] - state.points[:1]).T, 0.0)
    G = _dot(D.T, D)
    floor = DAMPING * jnp.trace(G) + jnp.finfo(G.dtype).tiny
    L = jnp.linalg.cholesky(G + floor * jnp.eye(KEPT - 1, dtype=G.dtype))
    a = jax.scipy.linalg.cho_solve((L, True), _dot(D.T, state.u - state.points[0]))
    return _dot(state.solutions, jnp.concatenate([1.0 - jnp.sum(a, keepdims=True), a]))


def _dot(A: Array, B: Array) -> Array:
    return jnp.matmul(A, B, precision="highest")


@partial(jax.jit, static_argnames=("structure", "plan"))
def _value(
    structure: Structure,
    leaves: tuple[Array, ...],
    data: Data,
    plan: core.Plan,
    key: Array,
    solutions: Array,
) -> Estimate:
    """The log likelihood, whose quadratic form is solved for from where the last step was."""
    at = core.observed(structure.rebuild(leaves), data, plan.where)
    start, side = solutions[:, :1, 0], at.residual[:, None]
    weights = core.solve_sides(at, plan, key, side, start).values[:, 0]
    return core.value(at, plan, key, weights)
