"""Which solver goes about which observations, and why."""

import warnings
from typing import Any

import numpy as np

from .._errors import KernaxWarning, ParameterError
from .._inputs import common_dtype
from .._memory import check_memory
from .._module import flatten
from ..linalg import Dense
from ..matrixfree import Iterative
from ..matrixfree._solver import dense_need, why_iterative
from ._data import Data
from ._iterative import mesh_of

# Rows from which on the memory is looked at first.
FEW = 2000


def choose(gp: Any, data: Any) -> tuple[Any, str]:
    """`Dense` or `Iterative`, and the reason: the process' own solver, or what "auto" takes.

    `ResourceError` where exact inference does not fit, `ParameterError` where the iterative solver
    was asked for what it cannot do; a `KernaxWarning` where "auto" is not exact.
    """
    refusal = _refusal(gp, data)
    if isinstance(gp.solver, Iterative):
        if refusal:
            raise ParameterError(
                f"`Iterative` is for one process, observed in values of one target, and here "
                f"{refusal}. Fix: use Dense()."
            )
        return gp.solver, "asked for"
    dtype = common_dtype(*data.points, *flatten(gp)[1])
    n, size = data.rows, np.dtype(dtype).itemsize
    if gp.solver == "auto" and not refusal:
        shared = mesh_of(data.X)[0] is not None
        why = "the rows are shared out over devices" if shared else None
        why = why or (why_iterative(n, size) if n > FEW else None)
        if why:
            # Inside a trace too: once, when it is compiled.
            warnings.warn(
                f"`solver='auto'` chose Iterative(), since {why}: results are good to its "
                "tolerance, variances to the number of its probes. "
                "Fix: pass solver=Iterative(...) or Dense() to choose yourself.",
                KernaxWarning,
                stacklevel=3,
            )
            return Iterative(), why
    if n > FEW:
        fix = "pass solver=kernax.Iterative()" if not refusal else "use fewer points"
        need = dense_need(n, size, _matrices(gp, data))
        check_memory(f"exact inference on {n} values", need, fix)
    return Dense(), "exact, and it fits"


def _matrices(gp: Any, data: Any) -> int:
    """How many exact inference holds at once, with a gradient or without one.

    What is observed in blocks is put together from them. Noise on the inputs is found in steps,
    whose gradient holds ten matrices; a value alone holds two.
    """
    if isinstance(data, Data):
        return 1 if gp.input_variance is None else 10
    return 4


def _refusal(gp: Any, data: Any) -> str | None:
    if not isinstance(data, Data):
        return "there are blocks of observations"
    if gp.kernel.levels():
        return "there is a batch"
    if data.targets:
        return "there are several targets"
    return "there is an `input_variance`" if gp.input_variance is not None else None
