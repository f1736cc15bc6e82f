"""Which solver, and why."""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np

from .._errors import ParameterError
from .._inputs import as_whole
from .._memory import available

# Rows beyond which a factorisation costs more than iterations do.
DENSE_ROWS = 20_000
# Numbers of the blocks of rows that a matrix is made of, and its derivatives taken in: those of one
# kernel; a sum of many takes some more.
BLOCKS = 3 << 19


class Iterative(eqx.Module):
    """Inference by preconditioned conjugate gradients: products with the matrix, never the matrix.

    ``tolerance``: the relative residual of every solution, of 64 bits 1e-6 and of 32 bits 1e-4
    where it is None; gradients in `fit` need no more than 1e-2. ``max_steps``: the most products
    of a solve. ``rank``: of the preconditioner. ``probes``: random right-hand sides, solved beside
    the observations: they estimate the traces in a gradient, and are the draws from which
    variances come, whose relative standard error is sqrt(2 / probes). ``features``: of the random
    functions that the draws start from. ``quadrature``: Lanczos steps for the log determinant.
    ``memory``: bytes that the matrix itself may take, and at most half of what is free: where it
    fits, products cost less; 0 for never. ``seed``: of all that is random, which is drawn once and
    stays.

    Lin et al. (2024), arXiv 2405.18457; Wang et al. (2019), arXiv 1903.08114.
    """

    tolerance: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=1000)
    rank: int = eqx.field(static=True, default=200)
    probes: int = eqx.field(static=True, default=32)
    features: int = eqx.field(static=True, default=2048)
    quadrature: int = eqx.field(static=True, default=25)
    memory: int = eqx.field(static=True, default=4 * 2**30)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.tolerance is not None and not 0.0 < self.tolerance < 1.0:
            raise ParameterError(
                f"`tolerance` is {self.tolerance!r}, expected a number between 0 and 1. "
                "Fix: pass for instance 1e-6."
            )
        least = {"max_steps": 1, "rank": 0, "probes": 1, "features": 2, "quadrature": 1}
        least |= {"memory": 0, "seed": 0}
        for name, lowest in least.items():
            if as_whole(getattr(self, name), name) < lowest:
                raise ParameterError(
                    f"`{name}` is {getattr(self, name)!r}, expected a whole number >= {lowest}. "
                    "Fix: leave it out."
                )

    def tolerance_in(self, dtype: Any) -> float:
        """The tolerance for numbers of a dtype."""
        if self.tolerance is not None:
            return self.tolerance
        return 1e-6 if np.dtype(dtype).itemsize == 8 else 1e-4

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)
        changed = [(f.name, getattr(self, f.name)) for f in fields]
        shown = [
            f"{name}={value!r}"
            for (name, value), f in zip(changed, fields, strict=True)
            if value != f.default
        ]
        return f"Iterative({', '.join(shown)})"


def room_for(solver: Iterative, n: int, itemsize: int) -> bool:
    """Whether the matrix itself may be held."""
    need = n * n * itemsize
    return need <= solver.memory and need <= available() // 2


def dense_need(n: int, itemsize: int, matrices: int = 1) -> int:
    """Bytes that exact inference on n rows takes at its peak, with so many matrices at once."""
    return (matrices * n * n + BLOCKS) * itemsize


def why_iterative(n: int, itemsize: int) -> str | None:
    """Why ``solver="auto"`` would not factorise n rows; None where it does."""
    if n > DENSE_ROWS:
        return f"n = {n} is more than {DENSE_ROWS} rows"
    need, there = dense_need(n, itemsize), available()
    if need > there:
        return f"a factorisation takes {need / 1e9:.1f} GB, and {there / 1e9:.1f} GB are free"
    return None
