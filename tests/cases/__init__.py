"""The cases of the table of kernels that do not fit into `tests.table`, one file per family."""

from typing import NamedTuple

import kernax as kx


class Case(NamedTuple):
    kernel: kx.AbstractKernel
    reference: object
    noise: object = None  # the diagonal, where white noise makes it another formula
    smooth: bool = True  # twice differentiable at coincident points
