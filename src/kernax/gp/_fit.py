"""Fitting hyperparameters: L-BFGS on the log marginal likelihood, in free space."""

import copy
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import (
    ConvergenceError,
    ConvergenceWarning,
    InputError,
    NumericalWarning,
    ParameterError,
)
from .._module import with_leaves
from .._typing import ArrayLike, HostArray
from ..distributed import gather
from ..matrixfree import Iterative
from . import _fit_iterative
from ._blocks import BlockData
from ._choice import choose
from ._data import Data, as_data, as_key
from ._defaults import default_priors, default_start, noise_alone
from ._fit_result import FitResult, groups_of
from ._minimise import Runs, Stop, best, minimise, start_runs
from ._priors import resolve_fixed, resolve_priors
from ._problem import Problem
from ._process import GaussianProcess


def fit(
    gp: Any,
    X: Any,
    y: Any = None,
    priors: Any = None,
    fixed: str | Sequence[str] = (),
    restarts: Any = 0,
    key: Any = None,
    max_steps: Any = 500,
    progress: bool = True,
    *,
    mask: ArrayLike | None = None,
    start: str = "auto",
    resume: FitResult | None = None,
    checkpoint: Any = None,
) -> FitResult:
    """Hyperparameters of maximal marginal likelihood, or maximal a posteriori with priors.

    ``priors``: dotted path -> NumPyro distribution of the value in natural scale. The estimate is
    then the mode of the posterior **in free space**: the density of the logarithm of a positive
    hyperparameter, of the logit of one in an interval. So each prior counts with the Jacobian of
    the transformation, and a log-normal prior pulls towards its median. Hyperparameters without
    a prior are flat in free space. Without priors it is the maximum likelihood, which does not
    depend on the space. ``priors="data"`` takes `default_priors`, from the scale of the data.

    ``start``: ``"given"``, the values that the process has; ``"data"``, those of `default_start`,
    from the scale of the data, for one process. ``"auto"``: the given ones, unless they explain
    the data less than independent noise of the mean and variance of y does, and those of the data
    more than they; so raw data of any units will do. A batch starts at the given values.

    ``fixed``: paths, or parts of the tree such as ``"mean"``, that stay as they are, to the bit.
    ``restarts``: further starts, drawn with ``key`` from the priors, or in free space around the
    given values, with a spread of 1.5; the best finite result is kept. They run side by side.
    Ctrl-C returns the best so far. ``resume``: an earlier result of the same call, whose runs go
    on for ``max_steps`` more, to the bits of one longer run. ``checkpoint``: a folder, where an
    iterative fit writes how far it is, every 5 steps and at its end, and from where it goes on if
    it was written before, for ``max_steps`` more; all processes of a cluster see the same.

    A batch of processes is fitted in one call. Where all that is free has a value per element
    (`BatchKernel` with ``batch_in_axes=0``, ``noise_variance`` (b,)), each element is a problem of
    its own, and stops by itself; else the sum of their likelihoods is maximised. An element whose
    starts all fail keeps its values and has the loss NaN.

    Raises `ConvergenceError` where no start has a finite loss; warns `ConvergenceWarning` for a
    stop before convergence or a hyperparameter at the end of its search range.
    """
    _check_options(gp, priors, restarts, max_steps, start)
    data = as_data(gp, X, y, mask, "pad").compiled
    blocks = isinstance(data, BlockData)
    if blocks and (start == "data" or isinstance(priors, str)):
        raise ParameterError(
            "start values and priors from data are for observations of values, and these are in "
            "blocks. Fix: state them."
        )
    if not _count(data):
        raise InputError(
            f"`X` has no real rows (shape {data.points[0].shape}), and nothing can be fitted to no "
            "data. Fix: pass at least one observation."
        )
    held = resolve_fixed(gp, fixed)
    if start == "data":
        scaled = default_start(gp, X, y, mask=mask).hyperparameters
        gp = with_leaves(gp, {path: v for path, v in scaled.items() if path not in held})
    if isinstance(priors, str):
        priors = default_priors(gp, X, y, mask=mask)
    if gp.kernel.levels():
        gp, data = _gathered(gp), _gathered(data)
    problem = Problem(gp, data.cleaned, held, resolve_priors(gp, priors, held))
    key = None if key is None else as_key(key)
    solver, _ = choose(gp, data)
    if isinstance(solver, Iterative):
        _fit_iterative.check(restarts)
        begin = _fit_iterative.kept(problem, solver, checkpoint) if resume is None else resume.runs
        near = start == "auto" and begin is None and _count(data) > _fit_iterative.SUBSET
        u = _fit_iterative.start_of(problem, held, key) if near else problem.starts(0, key)[0]
        with _Progress(1, max_steps, progress) as shown:
            options = {"max_steps": max_steps, "folder": checkpoint, "report": shown.step}
            return _fit_iterative.fit(problem, solver, begin, u, near, **options)
    if checkpoint is not None:
        raise ParameterError(
            "`checkpoint` is for iterative fits, and this one is exact. "
            "Fix: keep its result, and pass it as `resume`."
        )
    starts = problem.starts(restarts, key)
    single = not problem.sizes and not blocks
    if start == "auto" and resume is None and single and _count(data) > 1:
        starts[0] = _better_start(problem, starts[0], gp, X, y, mask)
    runs = start_runs(problem.evaluate, starts) if resume is None else _resumed(resume, starts)
    tolerance, resolution = (1e-5, 1e-9) if problem.dtype == jnp.float64 else (1e-3, 1e-6)
    interrupted = False
    with _Progress(len(starts), max_steps, progress) as report:
        try:
            minimise(problem.evaluate, runs, max_steps, tolerance, resolution, report)
        except KeyboardInterrupt:
            interrupted = True
    return _result(problem, runs, interrupted, max_steps)


def _better_start(
    problem: Problem, start: HostArray, gp: Any, X: Any, y: Any, mask: Any
) -> HostArray:
    """That of the data, if the given one is worse than independent noise, and than it."""
    loss = lambda u: problem.evaluate(u[None], np.zeros(1, int))[0][0]
    given = loss(start)
    if noise_alone(gp, X, y, mask) < given < np.inf:
        other = problem.free_point(default_start(gp, X, y, mask=mask).hyperparameters)
        return other if loss(other) < given else start
    return start


def _gathered(tree: Any) -> Any:
    """With arrays that devices share out on the first of them: the elements of a batch are gone
    through in any order."""

    def whole(leaf: Any) -> Any:
        spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        return jnp.asarray(gather(leaf)) if spread else leaf

    return jax.tree.map(whole, tree)


def _check_options(gp: Any, priors: Any, restarts: Any, max_steps: Any, start: Any) -> None:
    if not isinstance(gp, GaussianProcess):
        raise ParameterError(
            f"`gp` is a {type(gp).__name__}, expected a GaussianProcess. "
            "Fix: pass kernax.GaussianProcess(kernel)."
        )
    if not (priors is None or isinstance(priors, dict) or priors == "data"):
        raise ParameterError(
            f"`priors` is a {type(priors).__name__}, expected a dict of paths and distributions, "
            "or 'data'. Fix: pass for instance {'noise_variance': LogNormal(0, 1)}."
        )
    if start not in ("auto", "given", "data"):
        raise ParameterError(
            f"`start` is {start!r}, expected 'auto', 'given' or 'data'. Fix: leave it out, to "
            "start from the values that the process has, or from the data's scale if that is "
            "better."
        )
    for name, value in (("restarts", restarts), ("max_steps", max_steps)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise ParameterError(
                f"`{name}` is {value!r}, expected a whole number >= 0. Fix: pass for instance 10."
            )


def _count(data: Data | BlockData) -> int:
    total = 0
    for X in data.points:
        if not X.is_fully_addressable:
            return int(jnp.sum(~jnp.isnan(X).any(axis=-1)))
        real = np.ones(X.shape[:-1], bool)
        if data.mask is not None:
            real = np.broadcast_to(np.asarray(data.mask), real.shape)
        if X.dtype.kind == "f":
            real = real & ~np.isnan(np.asarray(X)).any(axis=-1)
        total += int(real.sum())
    return total


class _Progress:
    """A line that shows how far the runs are."""

    def __init__(self, runs: int, max_steps: int, shown: bool):
        from tqdm import tqdm

        label = "fit" if runs == 1 else f"fit, {runs} runs"
        self._bar = tqdm(total=max_steps, desc=label, unit="step", disable=not shown, leave=False)
        self._first: int | None = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, number: int, norm: float) -> None:
        """After one step of a single run, of which the loss is not known."""
        self._first = number - 1 if self._first is None else self._first
        self._bar.set_postfix_str(f"gradient {norm:.2g}", refresh=False)
        self._bar.update(number - self._first - self._bar.n)

    def __call__(self, runs: Runs) -> None:
        running = runs.stop == Stop.RUNNING
        steps = int(runs.steps.max(initial=0))
        self._first = steps - 1 if self._first is None else self._first
        loss, norm = np.nanmin(runs.loss), float(runs.norm.max(initial=0.0))
        many = f", {running.sum()} of {len(running)} runs go on" if len(running) > 1 else ""
        self._bar.set_postfix_str(f"loss {loss:.6g}, gradient {norm:.2g}{many}", refresh=False)
        self._bar.update(max(0, steps - self._first - self._bar.n))


def _resumed(result: Any, starts: HostArray) -> Runs:
    runs = getattr(result, "runs", None)
    if runs is None or runs.u.shape != starts.shape:
        raise ParameterError(
            f"`resume` is {result!r}, expected the result of a fit with {len(starts)} runs over "
            f"{starts.shape[1]} free hyperparameters. Fix: pass what the same call returned before."
        )
    return copy.deepcopy(runs)


def _result(problem: Problem, runs: Runs, interrupted: bool, max_steps: int) -> FitResult:
    groups = groups_of(problem, runs)
    failed = runs.stop == Stop.FAILED
    if failed.all():
        reasons = "; ".join(
            f"start {i + 1}: the loss at the start is {loss}"
            for i, loss in enumerate(runs.loss[groups[0]])
        )
        raise ConvergenceError(
            f"no start gives a finite loss: {reasons}. Fix: choose other start values, add noise, "
            "or enable x64."
        )
    chosen = best(runs, groups)
    fitted = problem.fitted(runs.u[chosen])
    messages = [_message(problem, runs, int(row), interrupted, max_steps) for row in chosen]
    _warn(problem, runs, chosen, messages)
    losses = np.where(failed, np.nan, runs.loss)[groups].T
    histories = [runs.history[row] for row in chosen]
    history = np.full((max(map(len, histories)), len(histories)), np.nan)
    for column, values in enumerate(histories):
        history[: len(values), column] = values
    found: dict[str, Any] = {
        "loss": losses[:, np.arange(len(chosen))][chosen // problem.elements, range(len(chosen))],
        "converged": runs.stop[chosen] == Stop.CONVERGED,
        "message": np.asarray(messages, object),
        "gradient_norm": runs.norm[chosen],
    }
    if problem.sizes:
        shaped = lambda values: np.broadcast_to(
            values.reshape(problem.sizes if problem.apart else ()), problem.sizes
        )
        found = {name: shaped(values) for name, values in found.items()}
        history = history.reshape(len(history), *(problem.sizes if problem.apart else ()))
        found["losses"] = losses.reshape(len(losses), *(problem.sizes if problem.apart else ()))
    else:
        found = {name: values[0] for name, values in found.items()}
        found |= {"loss": float(found["loss"]), "converged": bool(found["converged"])}
        found |= {"gradient_norm": float(found["gradient_norm"])}
        history, found["losses"] = history[:, 0], tuple(losses[:, 0].tolist())
    return FitResult(
        fitted, history=history, interrupted=interrupted, runs=runs, problem=problem, **found
    )


def _message(problem: Problem, runs: Runs, row: int, interrupted: bool, max_steps: int) -> str:
    norm = f"{runs.norm[row]:.2g}"
    match Stop(runs.stop[row]):
        case Stop.CONVERGED:
            return f"gradient {norm}" if problem.space.size else "nothing was free to fit"
        case Stop.LINE_SEARCH:
            return f"the line search makes no progress, with a gradient of {norm} left"
        case Stop.FAILED:
            return f"the loss at the start is {runs.loss[row]}"
    if interrupted:
        return "interrupted: this is the best so far"
    return f"stopped after {max_steps} steps"


def _warn(problem: Problem, runs: Runs, chosen: HostArray, messages: list[str]) -> None:
    """What the user should know of the result, once for all elements."""
    warn = partial(warnings.warn, stacklevel=4)
    single = problem.elements == 1
    bounds = [
        (f"element {e}: " * (not single)) + text
        for e, (row, start) in enumerate(zip(chosen, problem.starts_of_elements(), strict=True))
        for text in problem.space.at_bounds(runs.u[row], start)
    ]
    for text in bounds if single else bounds[:1]:
        more = f" (and {len(bounds) - 1} more)" if not single and len(bounds) > 1 else ""
        warn(
            f"fit: {text} of its search range{more}. Fix: look whether the data say anything about "
            "it, give it a prior, or fix it.",
            ConvergenceWarning,
        )
    stopped = [e for e, row in enumerate(chosen) if runs.stop[row] != Stop.CONVERGED]
    if stopped:
        which = (
            "" if single else f"{len(stopped)} of {problem.elements} elements did not converge, "
        )
        which += "" if single else f"the first is {stopped[0]}: "
        warn(f"fit: {which}{messages[stopped[0]]}.", ConvergenceWarning)
    jitter = problem.jitter(runs.u[chosen], chosen)
    if jitter > 0:
        warn(
            f"fit: the covariance at the result needed a jitter of {jitter:.3g}. Fix: add noise.",
            NumericalWarning,
        )
