"""Many independent minimisations at once, by L-BFGS on the host.

The problems share nothing but their evaluation: each round hands the trial points of all that are
still running to one function, which computes their losses and gradients together. Each problem
goes through its own line search meanwhile, so none waits for the slowest, and one that is done
costs nothing any more. A state is plain arrays: it can be stopped after any step, and goes on to
the same bits. No library was found that offers this: optimisers under `vmap` evaluate every
problem until the last one's line search ends.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from .._typing import HostArray

MEMORY = 20
ARMIJO, WOLFE = 1e-4, 0.9  # Nocedal and Wright (2006), section 3.1
MOST_TRIALS = 20
PATIENCE = 3  # steps in a row that may bring next to nothing

Evaluate = Callable[[HostArray, HostArray], tuple[HostArray, HostArray]]


class Stop(enum.IntEnum):
    """Why a minimisation ended."""

    RUNNING = 0  # it did not, or reached the number of steps that it was given
    CONVERGED = 1
    LINE_SEARCH = 2  # no step along the direction makes progress
    FAILED = 3  # the loss at the start is not finite


@dataclasses.dataclass
class Runs:
    """The state of P minimisations over k coordinates: one row each."""

    u: HostArray  # the last accepted point (P, k)
    loss: HostArray
    gradient: HostArray
    steps: HostArray  # how many were accepted
    stop: HostArray
    direction: HostArray
    slope: HostArray  # of the loss along the direction
    trial: HostArray  # the length of step that is tried next
    low: HostArray  # the bracket around a good one
    high: HostArray
    trials: HostArray
    idle: HostArray
    differences: HostArray  # of points (P, MEMORY, k), the newest last
    changes: HostArray  # of gradients
    rho: HostArray  # 1 / (difference . change), 0 where there is none yet
    history: list[list[float]]

    @property
    def norm(self) -> HostArray:
        """The largest derivative of each."""
        return np.abs(self.gradient).max(axis=1, initial=0.0)


def start_runs(evaluate: Evaluate, u: HostArray) -> Runs:
    """The state at the starting points (P, k)."""
    P, k = u.shape
    loss, gradient = evaluate(u, np.arange(P))
    zeros, memory = np.zeros(P), np.zeros((P, MEMORY, k))
    runs = Runs(
        u.copy(), loss, gradient, zeros.astype(int), zeros.astype(int), -gradient, zeros.copy(),
        zeros.copy(), zeros.copy(), zeros.copy(), zeros.astype(int), zeros.astype(int),
        memory, memory.copy(), np.zeros((P, MEMORY)), [[float(value)] for value in loss],
    )  # fmt: skip
    finite = np.isfinite(loss) & np.isfinite(gradient).all(axis=1)
    runs.stop[~finite] = Stop.FAILED
    if k == 0:
        runs.stop[finite] = Stop.CONVERGED
    _aim(runs, np.flatnonzero(finite))
    return runs


def best(runs: Runs, groups: HostArray) -> HostArray:
    """Of the runs in each row of ``groups``, the one of the least finite loss, or the first."""
    loss = np.where(runs.stop[groups] == Stop.FAILED, np.inf, runs.loss[groups])
    chosen: HostArray = groups[np.arange(len(groups)), loss.argmin(axis=1)]
    return chosen


def minimise(
    evaluate: Evaluate,
    runs: Runs,
    max_steps: int,
    tolerance: float,
    resolution: float,
    report: Callable[[Runs], Any],
) -> None:
    """Carry the runs on, in place, each by ``max_steps`` steps at most.

    ``tolerance``: of the gradient, in units of max(1, |loss|). ``resolution``: a relative change
    of the loss that is no progress. ``report`` is called after each round.
    """
    limit = runs.steps + max_steps
    while True:
        active = np.flatnonzero((runs.stop == Stop.RUNNING) & (runs.steps < limit))
        if not len(active):
            return
        points = runs.u[active] + runs.trial[active, None] * runs.direction[active]
        loss, gradient = evaluate(points, active)
        _advance(runs, active, points, loss, gradient, tolerance, resolution)
        report(runs)


def _advance(
    runs: Runs,
    active: HostArray,
    points: HostArray,
    loss: HostArray,
    gradient: HostArray,
    tolerance: float,
    resolution: float,
) -> None:
    """What the trials say: a shorter step, a longer one, or the next direction."""
    step, start_slope = runs.trial[active], runs.slope[active]
    slope = np.einsum("pk,pk->p", gradient, runs.direction[active])
    finite = np.isfinite(loss) & np.isfinite(gradient).all(axis=1)
    gain = runs.loss[active] - loss
    scale = np.maximum(1.0, np.abs(runs.loss[active]))
    # Where the loss no longer moves in its last digits, its slope has to decide.
    flat = np.abs(gain) <= resolution * scale
    with np.errstate(invalid="ignore"):
        enough = gain >= -ARMIJO * step * start_slope
        settled = flat & (gain >= 0) & (np.abs(slope) <= WOLFE * np.abs(start_slope))
        long = ~finite | ~(enough | settled)
        short = ~long & (slope < WOLFE * start_slope)
    exhausted = runs.trials[active] >= MOST_TRIALS
    accepted = ~long & (~short | exhausted)
    _resize(runs, active, long & ~exhausted, short & ~exhausted, loss, finite)
    _settle(runs, active[long & exhausted], tolerance)
    rows = active[accepted]
    _remember(runs, rows, points[accepted], gradient[accepted])
    lost = gain[accepted] <= resolution * scale[accepted]
    runs.idle[rows] = np.where(lost, runs.idle[rows] + 1, 0)
    runs.u[rows], runs.loss[rows], runs.gradient[rows] = (
        points[accepted], loss[accepted], gradient[accepted],
    )  # fmt: skip
    runs.steps[rows] += 1
    for row in rows:
        runs.history[row].append(float(runs.loss[row]))
    scale = np.maximum(1.0, np.abs(runs.loss[rows]))
    _settle(runs, rows[runs.idle[rows] >= PATIENCE], tolerance)
    runs.stop[rows[runs.norm[rows] <= tolerance * scale]] = Stop.CONVERGED
    _aim(runs, rows)


def _settle(runs: Runs, rows: HostArray, tolerance: float) -> None:
    """The end of those that make no progress: a loss that moves in its last digits only has a
    gradient of noise, so that a small one will do."""
    small = runs.norm[rows] <= max(tolerance, 1e-3) * np.maximum(1.0, np.abs(runs.loss[rows]))
    runs.stop[rows] = np.where(small, Stop.CONVERGED, Stop.LINE_SEARCH)


def _resize(
    runs: Runs,
    active: HostArray,
    long: HostArray,
    short: HostArray,
    loss: HostArray,
    finite: HostArray,
) -> None:
    """The next trial of those whose step was too long, or too short."""
    runs.trials[active[long | short]] += 1
    rows, step = active[long], runs.trial[active[long]]
    # The minimum of the parabola through what is known, kept inside the bracket.
    rise = np.where(finite[long], loss[long] - runs.loss[rows], np.inf)
    curvature = rise - runs.slope[rows] * step
    with np.errstate(invalid="ignore", divide="ignore"):
        parabola = np.where(curvature > 0, -runs.slope[rows] * step**2 / (2.0 * curvature), 0.0)
    runs.high[rows] = step
    width = step - runs.low[rows]
    runs.trial[rows] = np.clip(parabola, runs.low[rows] + 0.1 * width, runs.low[rows] + 0.5 * width)
    rows = active[short]
    runs.low[rows] = runs.trial[rows]
    bounded = np.isfinite(runs.high[rows])
    middle = 0.5 * (runs.low[rows] + np.where(bounded, runs.high[rows], 0.0))
    runs.trial[rows] = np.where(bounded, middle, 2.0 * runs.trial[rows])


def _remember(runs: Runs, rows: HostArray, points: HostArray, gradient: HostArray) -> None:
    difference, change = points - runs.u[rows], gradient - runs.gradient[rows]
    product = np.einsum("pk,pk->p", difference, change)
    size = np.einsum("pk,pk->p", change, change)
    curved = product > 1e-12 * np.maximum(size, np.finfo(float).tiny)
    kept = rows[curved]
    for memory, new in (
        (runs.differences, difference[curved]),
        (runs.changes, change[curved]),
        (runs.rho, 1.0 / product[curved]),
    ):
        memory[kept, :-1] = memory[kept, 1:]
        memory[kept, -1] = new


def _aim(runs: Runs, rows: HostArray) -> None:
    """New directions by the two-loop recursion; Nocedal and Wright (2006), algorithm 7.4."""
    s, y, rho = runs.differences[rows], runs.changes[rows], runs.rho[rows]
    dot = lambda a, b: np.einsum("pk,pk->p", a, b)
    q, alphas = runs.gradient[rows].copy(), np.zeros_like(rho)
    for j in range(MEMORY - 1, -1, -1):
        alphas[:, j] = rho[:, j] * dot(s[:, j], q)
        q -= alphas[:, j, None] * y[:, j]
    known = rho[:, -1] > 0
    size = dot(y[:, -1], y[:, -1])
    first = 1.0 / np.maximum(np.abs(runs.gradient[rows]).sum(axis=1), 1.0)
    scale = np.where(known, 1.0 / np.where(known, rho[:, -1] * size, 1.0), first)
    q *= scale[:, None]
    for j in range(MEMORY):
        q += (alphas[:, j] - rho[:, j] * dot(y[:, j], q))[:, None] * s[:, j]
    slope = -dot(q, runs.gradient[rows])
    # Rounding may spoil a direction: start again along the gradient.
    wrong = ~(slope < 0)
    q[wrong] = first[wrong, None] * runs.gradient[rows][wrong]
    runs.rho[rows[wrong]] = 0.0
    runs.direction[rows], runs.slope[rows] = -q, -dot(q, runs.gradient[rows])
    runs.trial[rows], runs.low[rows], runs.high[rows], runs.trials[rows] = 1.0, 0.0, np.inf, 0
