"""The kernels by name: what the command line accepts and lists."""

import inspect
import re

from ._base import AbstractKernel
from ._dot_product import LinearKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel
from ._periodic import PeriodicKernel
from ._stationary import RationalQuadraticKernel, SEKernel
from ._transforms import ActiveDimsKernel, ARDKernel

CATALOGUE: tuple[type[AbstractKernel], ...] = (
    SEKernel,
    Matern12Kernel,
    Matern32Kernel,
    Matern52Kernel,
    RationalQuadraticKernel,
    PeriodicKernel,
    LinearKernel,
    ConstantKernel,
    WhiteNoiseKernel,
    ARDKernel,
    ActiveDimsKernel,
)


def formula(cls: type[AbstractKernel]) -> str:
    """The formula in the docstring of a kernel class, on one line."""
    found = re.search(r"k\(x, y\) = (.+?)(?:\n\n|$|,  r = )", inspect.getdoc(cls) or "", re.DOTALL)
    return "k(x, y) = " + " ".join(found.group(1).split()).rstrip(".,") if found else ""


def parameters(cls: type[AbstractKernel]) -> list[str]:
    """The parameters of a kernel class, as in its constructor."""
    return [
        name if value.default is value.empty else f"{name}={value.default}"
        for name, value in inspect.signature(cls).parameters.items()
    ]
