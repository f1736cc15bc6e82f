"""How often a kernel may be differentiated: refused by name where a derivative does not exist."""

import math
from typing import Any

from .._errors import ParameterError
from ._base import AbstractKernel, ScaledInputsKernel, subkernels
from ._batch import BatchKernel
from ._change_point import ChangePointKernel
from ._compose import OperatorKernel
from ._similarity import HammingKernel, TanimotoKernel
from ._tie import TiedKernel
from ._transforms import ActiveDimsKernel, ARDKernel

# What these do is smooth, or acts on each dimension by itself: only their parts count.
_SMOOTH = (
    OperatorKernel, ARDKernel, TiedKernel, BatchKernel, ChangePointKernel, ScaledInputsKernel,
)  # fmt: skip


def check_smoothness(kernel: AbstractKernel, orders: tuple[int, ...], what: str) -> None:
    """`ParameterError` unless the process has the derivatives that ``what`` takes.

    ``orders`` counts those in both points together, for each dimension of the points: a part that
    is p times mean-square differentiable has 2 p in the dimensions that it reads.
    """
    if isinstance(kernel, ActiveDimsKernel):
        kernel.check(len(orders))
        own = tuple(orders[dim] for dim in kernel.active_dims)
        check_smoothness(kernel.inner_kernel, own, what)
    elif isinstance(kernel, _SMOOTH):
        for part in subkernels(kernel):
            check_smoothness(part, orders, what)
    else:
        _check_all(kernel, sum(orders), what)


def _check_all(kernel: AbstractKernel, total: int, what: str) -> None:
    """For a kernel around which it is not known what dimensions it sees: they may be any."""
    for part in subkernels(kernel):
        _check_all(part, total, what)
    # After its parts, so that the one which is rough is named.
    if total > 2 * kernel.differentiability:
        raise ParameterError(_refusal(kernel, total, what))


def check_continuity(kernel: AbstractKernel, what: str) -> None:
    """`ParameterError` for a kernel of categories or sets, over which nothing can be integrated."""
    if isinstance(kernel, HammingKernel | TanimotoKernel):
        raise ParameterError(
            f"`{what}` acts on functions of continuous inputs, and {type(kernel).__name__} jumps. "
            "Fix: use another kernel for the dimensions that it reads."
        )
    for part in subkernels(kernel):
        check_continuity(part, what)


def _refusal(kernel: Any, total: int, what: str) -> str:
    p = kernel.differentiability
    count = math.floor(p)
    often = "not" if count < 1 else "once" if count == 1 else f"{count} times"
    most = f"at most {2 * count} derivatives in both points together" if count else "none"
    fix = (
        "use a smoother kernel, such as Matern52Kernel or SEKernel"
        if total <= 4
        else "use SEKernel, or MaternKernel of a larger nu"
    )
    return (
        f"{type(kernel).__name__} is {often} mean-square differentiable, which allows {most}, and "
        f"{what} takes {total}. Fix: {fix}."
    )
