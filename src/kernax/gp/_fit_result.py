"""What a fit found."""

import dataclasses
from typing import Any

import numpy as np

from .._errors import MissingExtraError, ParameterError
from .._typing import HostArray
from ._laplace import LaplaceApproximation
from ._minimise import Runs, best
from ._problem import Problem
from ._process import GaussianProcess


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """What `fit` found.

    ``gp``: the process with the fitted hyperparameters. ``loss``: minus the log marginal
    likelihood at those hyperparameters, and with priors minus their log density **in free space**:
    that of the natural scale plus the log Jacobian of the transformation. ``history``: the
    loss after each step of the best start. ``converged``, ``message``: why it stopped.
    ``gradient_norm``: the largest derivative left in free space. ``losses``: the final loss of
    each start, NaN where it failed. ``interrupted``: stopped by Ctrl-C.

    Of a batch ``loss``, ``converged``, ``message`` and ``gradient_norm`` have its shape (b,),
    ``history`` is (steps + 1, b), NaN after the last step of an element, and ``losses`` is
    (starts, b). ``fit(..., resume=result)`` goes on where it stopped.

    With an `Iterative` solver ``history`` holds the last loss alone, and ``details`` the relative
    ``residual`` of the last solves, the ``products`` with the matrix, the standard error of the
    loss, and the number of ``steps``.
    """

    gp: GaussianProcess
    loss: Any
    history: HostArray
    converged: Any
    message: Any
    gradient_norm: Any
    losses: Any
    interrupted: bool = False
    runs: Any = None
    problem: Any = None
    details: dict[str, Any] | None = None

    def summary(self) -> str:
        """The outcome in a line, then the hyperparameters."""
        return f"{self._outcome()}\n{self.gp.summary()}"

    def __repr__(self) -> str:
        return f"FitResult({self._outcome()})"

    def _outcome(self) -> str:
        if np.ndim(self.converged):
            return (
                f"{int(np.sum(self.converged))} of {np.size(self.converged)} elements converged, "
                f"the losses add up to {np.sum(self.loss):.6f}"
            )
        state = "converged" if self.converged else "not converged"
        steps = self.details["steps"] if self.details else len(self.history) - 1
        return f"loss {self.loss:.6f} after {steps} steps, {state}: {self.message}"

    def laplace(self) -> LaplaceApproximation:
        """The hyperparameters' posterior as a normal distribution in free space, at the optimum."""
        return LaplaceApproximation.at(self.problem, self._points())

    def plot(self) -> Any:
        """The loss after each step, a line per element, as a matplotlib figure."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("drawing", "matplotlib", "plot") from error
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        lines = self.history.reshape(len(self.history), -1)
        above = lines - np.nanmin(lines, axis=0) if lines.shape[1] > 1 else lines
        axes.plot(above, color="#0072b2", linewidth=1.2, alpha=1.0 if lines.shape[1] == 1 else 0.4)
        axes.set_xlabel("step")
        axes.set_ylabel("loss" if lines.shape[1] == 1 else "loss above its least")
        return figure

    def _points(self) -> HostArray:
        if not isinstance(self.runs, Runs):
            raise ParameterError(
                "this fit was iterative, and second derivatives take an exact one. "
                "Fix: fit with Dense(), maybe a subset."
            )
        return self.runs.u[best(self.runs, groups_of(self.problem, self.runs))]


def groups_of(problem: Problem, runs: Runs) -> HostArray:
    """The numbers of the runs of each element, (elements, starts)."""
    return np.arange(len(runs.u)).reshape(-1, problem.elements).T
