"""Fitting hyperparameters: L-BFGS on the log marginal likelihood, in free space."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import (
    ConvergenceError,
    ConvergenceWarning,
    InputError,
    NumericalWarning,
    ParameterError,
)
from .._inputs import common_dtype
from .._module import Structure, flatten, with_leaves
from .._typing import ArrayLike, HostArray
from ..linalg import log_density
from ._data import Data, as_data, as_key, system
from ._free_space import FreeSpace, coordinate, free_space
from ._priors import log_prior, resolve_fixed, resolve_priors
from ._process import GaussianProcess

PATIENCE = 3  # steps in a row that may bring next to nothing


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What `fit` found.

    ``gp``: the process with the fitted hyperparameters. ``loss``: minus the log marginal
    likelihood at those hyperparameters, and with priors minus their log density **in free space**:
    that of the natural scale plus the log Jacobian of the transformation. ``history``: the
    loss after each step of the best start. ``converged``, ``message``: why it stopped.
    ``gradient_norm``: the largest derivative left in free space. ``losses``: the final loss of
    each start, NaN where it failed. ``interrupted``: stopped by Ctrl-C.
    """

    gp: GaussianProcess
    loss: float
    history: HostArray
    converged: bool
    message: str
    gradient_norm: float
    losses: tuple[float, ...]
    interrupted: bool = False

    def summary(self) -> str:
        """The outcome in a line, then the hyperparameters."""
        state = "converged" if self.converged else "not converged"
        return (
            f"loss {self.loss:.6f} after {len(self.history) - 1} steps, {state}: {self.message}\n"
            + self.gp.summary()
        )


def fit(
    gp: Any,
    X: ArrayLike,
    y: ArrayLike,
    priors: Any = None,
    fixed: str | Sequence[str] = (),
    restarts: Any = 0,
    key: Any = None,
    max_steps: Any = 500,
    progress: bool = True,
    *,
    mask: ArrayLike | None = None,
) -> FitResult:
    """Hyperparameters of maximal marginal likelihood, or maximal a posteriori with priors.

    ``priors``: dotted path -> NumPyro distribution of the value in natural scale. The estimate is
    then the mode of the posterior **in free space**: the density of the logarithm of a positive
    hyperparameter, of the logit of one in an interval. So each prior counts with the Jacobian of
    the transformation, and a log-normal prior pulls towards its median. Hyperparameters without
    a prior are flat in free space. Without priors it is the maximum likelihood, which does not
    depend on the space.

    ``fixed``: paths, or parts of the tree such as ``"mean"``, that stay as they are, to the bit.
    ``restarts``: further starts, drawn with ``key`` from the priors, or in free space around the
    given values, with a spread of 1.5; the best finite result is kept. Ctrl-C returns the best so
    far.

    Raises `ConvergenceError` where no start has a finite loss; warns `ConvergenceWarning` for a
    stop before convergence or a hyperparameter at the end of its search range.
    """
    _check_options(gp, priors, restarts, max_steps)
    data = as_data(gp, X, y, mask, "pad").compiled
    if not _count(data):
        raise InputError(
            f"`X` has no real rows (shape {data.X.shape}), and nothing can be fitted to no data. "
            "Fix: pass at least one observation."
        )
    held = resolve_fixed(gp, fixed)
    distributions = resolve_priors(gp, priors, held)
    space, start = free_space(gp, held)
    problem = _Problem(gp, data, space, start, distributions)
    key = jax.random.key(0) if key is None else as_key(key)
    starts = [problem.origin] + [
        problem.random_start(jax.random.fold_in(key, i)) for i in range(restarts)
    ]
    runs: list[_Run] = []
    for number, u in enumerate(starts):
        label = "fit" if len(starts) == 1 else f"fit, start {number + 1} of {len(starts)}"
        try:
            runs.append(_minimise(problem, u, max_steps, progress, label))
        except KeyboardInterrupt:
            if not runs:
                raise  # no loss is known yet
            runs[-1] = dataclasses.replace(runs[-1], interrupted=True)
        if runs[-1].interrupted:
            break
    return _best(problem, runs)


def _check_options(gp: Any, priors: Any, restarts: Any, max_steps: Any) -> None:
    if not isinstance(gp, GaussianProcess):
        raise ParameterError(
            f"`gp` is a {type(gp).__name__}, expected a GaussianProcess. "
            "Fix: pass kernax.GaussianProcess(kernel)."
        )
    if priors is not None and not isinstance(priors, dict):
        raise ParameterError(
            f"`priors` is a {type(priors).__name__}, expected a dict of paths and distributions. "
            "Fix: pass for instance {'noise_variance': LogNormal(0, 1)}."
        )
    for name, value in (("restarts", restarts), ("max_steps", max_steps)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise ParameterError(
                f"`{name}` is {value!r}, expected a whole number >= 0. Fix: pass for instance 10."
            )


@dataclasses.dataclass(frozen=True)
class _Run:
    """One start: its best point and why it ended; ``failure`` where there is none."""

    u: HostArray
    history: list[float]
    gradient_norm: float
    converged: bool
    message: str
    failure: str | None = None
    interrupted: bool = False

    @property
    def loss(self) -> float:
        return float("nan") if self.failure else min(self.history)


class _Problem:
    """The loss of one process on one data set, as functions of the free coordinates."""

    def __init__(
        self,
        gp: GaussianProcess,
        data: Data,
        space: FreeSpace,
        start: dict[str, Array],
        priors: dict[str, Any],
    ):
        self.gp, self.space, self.start, self.priors, self.data = gp, space, start, priors, data
        self.structure, self.leaves = flatten(gp)
        self.dtype = common_dtype(data.X, *self.leaves)
        self.origin = jnp.zeros(space.size, self.dtype)

    def fitted(self, u: Any) -> GaussianProcess:
        values = self.space.values(jnp.asarray(u), self.start)
        cast = {path: value.astype(self.start[path].dtype) for path, value in values.items()}
        result: GaussianProcess = with_leaves(self.gp, cast)
        return result

    def step(self, u: Array, state: Any, loss: Array, gradient: Array) -> Any:
        return _step(*self._arguments(), u, state, loss, gradient)

    def loss_and_gradient(self, u: Array) -> tuple[Array, Array]:
        loss, gradient = _loss_and_gradient(*self._arguments(), u)
        return loss, gradient

    def _arguments(self) -> Any:
        return self.structure, self.space, self.leaves, self.start, self.priors, self.data

    def random_start(self, key: Array) -> Array:
        """Free coordinates drawn from the priors; without one, around the start."""
        parts = []
        for index, path in enumerate(self.space.paths):
            start, own = self.start[path].astype(self.dtype), jax.random.fold_in(key, index)
            if path in self.priors:
                with jax.numpy_dtype_promotion("standard"):
                    drawn = self.priors[path].sample(own, start.shape).astype(self.dtype)
                parts.append(coordinate(self.space.constraints[index], drawn, start).ravel())
            else:
                parts.append(1.5 * jax.random.normal(own, (start.size,), self.dtype))
        return jnp.concatenate([jnp.zeros(0, self.dtype), *parts])


def _count(data: Data) -> int:
    real = np.ones(data.X.shape[0], bool) if data.mask is None else np.asarray(data.mask)
    if data.X.dtype.kind == "f":
        real = real & ~np.isnan(np.asarray(data.X)).any(axis=1)
    return int(real.sum())


def _minimise(problem: _Problem, u: Array, max_steps: int, progress: bool, label: str) -> _Run:
    from tqdm import tqdm

    loss, gradient = problem.loss_and_gradient(u)
    first = float(loss)
    if not np.isfinite(first):
        return _Run(np.asarray(u), [first], np.nan, False, "", f"the loss at the start is {first}")
    history, best, norm = [first], np.asarray(u), float(jnp.max(jnp.abs(gradient), initial=0.0))
    converged, message, interrupted, idle = False, f"stopped after {max_steps} steps", False, 0
    tolerance = 1e-5 if problem.dtype == jnp.float64 else 1e-3
    state = _initial_state(u)
    bar = tqdm(total=max_steps, desc=label, unit="step", disable=not progress, leave=False)
    try:
        for _ in range(max_steps if problem.space.size else 0):
            u, state, loss, gradient = problem.step(u, state, loss, gradient)
            value, change = float(loss), history[-1] - float(loss)
            if not np.isfinite(value):
                message = (
                    f"step {len(history)} met a loss that is not finite, and was rejected; the "
                    f"last finite one is {history[-1]:.6g}"
                )
                break
            if value < min(history):
                best = np.asarray(u)
                norm = float(jnp.max(jnp.abs(gradient)))
            history.append(value)
            bar.set_postfix_str(f"loss {value:.6g}, gradient {norm:.2g}", refresh=False)
            bar.update()
            scale = max(1.0, abs(value))
            idle = idle + 1 if change <= _resolution(problem.dtype) * scale else 0
            if norm <= tolerance * scale or idle >= PATIENCE:
                # Where the loss no longer moves in its last digits, its gradient is noise too.
                converged = norm <= max(tolerance, 1e-3) * scale
                message = (
                    f"gradient {norm:.2g}"
                    if converged
                    else f"the line search makes no progress, with a gradient of {norm:.2g} left"
                )
                break
        else:
            if not problem.space.size:
                converged, message, norm = True, "nothing was free to fit", 0.0
    except KeyboardInterrupt:
        message, interrupted = "interrupted: this is the best so far", True
    finally:
        bar.close()
    return _Run(best, history, norm, converged, message, None, interrupted)


def _resolution(dtype: Any) -> float:
    return 1e-9 if dtype == jnp.float64 else 1e-6


def _best(problem: _Problem, runs: list[_Run]) -> FitResult:
    good = [run for run in runs if run.failure is None]
    if not good:
        reasons = "; ".join(f"start {i + 1}: {run.failure}" for i, run in enumerate(runs))
        raise ConvergenceError(
            f"no start gives a finite loss: {reasons}. Fix: choose other start values, add noise, "
            "or enable x64."
        )
    run = min(good, key=lambda run: run.loss)
    fitted = problem.fitted(run.u)
    for text in problem.space.at_bounds(run.u, problem.start):
        warnings.warn(
            f"fit: {text} of its search range. Fix: look whether the data say anything about it, "
            "give it a prior, or fix it.",
            ConvergenceWarning,
            stacklevel=3,
        )
    if not run.converged:
        warnings.warn(f"fit: {run.message}.", ConvergenceWarning, stacklevel=3)
    jitter = float(_jitter(*flatten(fitted), problem.data))
    if jitter > 0:
        warnings.warn(
            f"fit: the covariance at the result needed a jitter of {jitter:.3g}. Fix: add noise.",
            NumericalWarning,
            stacklevel=3,
        )
    return FitResult(
        fitted,
        float(problem.loss_and_gradient(jnp.asarray(run.u))[0]),
        np.asarray(run.history),
        run.converged,
        run.message,
        run.gradient_norm,
        tuple(run.loss for run in runs),
        any(run.interrupted for run in runs),
    )


# --- compiled ----------------------------------------------------------------------------------


@functools.cache
def _optimiser() -> Any:
    import optax  # a tenth of a second, which only fitting needs

    return optax.lbfgs(memory_size=20)


@jax.custom_vjp
def _finite_gradient(u: Array) -> Array:
    """u itself; a gradient that is not finite, from a rejected point, comes back as 0."""
    return u


_finite_gradient.defvjp(lambda u: (u, None), lambda _, g: (jnp.where(jnp.isfinite(g), g, 0.0),))


def _loss(
    structure: Structure,
    space: FreeSpace,
    leaves: tuple[Array, ...],
    start: dict[str, Array],
    priors: dict[str, Any],
    data: Data,
    u: Array,
) -> Array:
    u = _finite_gradient(u)
    values = space.values(u, start)
    gp = with_leaves(structure.rebuild(leaves), values)
    K, residual, count, scale, _ = system(gp, data)
    log_posterior = log_density(K, residual, count, scale)[0]
    if priors:
        log_posterior = log_posterior + log_prior(priors, values)
        log_posterior = log_posterior + space.log_jacobian(u, start, frozenset(priors))
    # What has no likelihood is to be walked away from.
    return jnp.where(jnp.isnan(log_posterior), jnp.inf, -log_posterior)


_loss_and_gradient = jax.jit(jax.value_and_grad(_loss, argnums=6), static_argnums=(0, 1))


@jax.jit
def _initial_state(u: Array) -> Any:
    # In the dtypes that a step returns, not in weak ones: else the second step compiles again.
    return jax.tree.map(
        lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), _optimiser().init(u)
    )


@partial(jax.jit, static_argnums=(0, 1))
def _step(
    structure: Structure,
    space: FreeSpace,
    leaves: tuple[Array, ...],
    start: dict[str, Array],
    priors: dict[str, Any],
    data: Data,
    u: Array,
    state: Any,
    value: Array,
    gradient: Array,
) -> Any:
    """One L-BFGS step with its line search: the new point, state, loss and gradient."""
    loss = partial(_loss, structure, space, leaves, start, priors, data)
    import optax

    # optax is not written for strict promotion, which a user may have switched on.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = _optimiser().update(
            gradient, state, u, value=value, grad=gradient, value_fn=loss
        )
    return (
        optax.apply_updates(u, updates),
        state,
        optax.tree_utils.tree_get(state, "value"),
        optax.tree_utils.tree_get(state, "grad"),
    )


@partial(jax.jit, static_argnums=(0,))
def _jitter(structure: Structure, leaves: tuple[Array, ...], data: Data) -> Array:
    K, residual, count, scale, _ = system(structure.rebuild(leaves), data)
    return log_density(K, residual, count, scale)[1]
