"""The kernels by name: what the command line accepts and lists."""

import inspect
import re

from ._arc_cosine import ArcCosineKernel
from ._base import AbstractKernel
from ._brownian import BrownianKernel, FractionalBrownianKernel
from ._change_point import ChangePointKernel
from ._dot_product import LinearKernel, PolynomialKernel, SigmoidKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._gamma_exponential import GammaExponentialKernel
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel
from ._periodic import PeriodicKernel
from ._similarity import HammingKernel, TanimotoKernel
from ._spectral_mixture import CosineKernel, SpectralMixtureKernel
from ._stationary import RationalQuadraticKernel, SEKernel
from ._transforms import ActiveDimsKernel, ARDKernel
from ._wendland import WendlandKernel

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
    MaternKernel,
    GammaExponentialKernel,
    WendlandKernel,
    CosineKernel,
    SpectralMixtureKernel,
    PolynomialKernel,
    SigmoidKernel,
    ArcCosineKernel,
    TanimotoKernel,
    HammingKernel,
    BrownianKernel,
    FractionalBrownianKernel,
    ARDKernel,
    ActiveDimsKernel,
    ChangePointKernel,
)


def formula(cls: type[AbstractKernel]) -> str:
    """The formula in the docstring of a kernel class, on one line."""
    text = inspect.getdoc(cls) or ""
    found = re.search(r"k\(x, y\) = (.+?)(?:\n\n|$|,  \w = |,\ns\(x\))", text, re.DOTALL)
    return "k(x, y) = " + " ".join(found.group(1).split()).rstrip(".,") if found else ""


def parameters(cls: type[AbstractKernel]) -> list[str]:
    """The parameters of a kernel class, as in its constructor."""
    return [
        name if value.default is value.empty else f"{name}={value.default}"
        for name, value in inspect.signature(cls).parameters.items()
    ]
