"""Kernax: covariance functions and Gaussian processes in JAX.

Write one formula, and get every matrix, derivative and likelihood from it.
"""

from importlib.metadata import version as _version

from ._errors import (
    ConvergenceError,
    ConvergenceWarning,
    DTypeError,
    FormatError,
    InputError,
    KernaxError,
    KernaxWarning,
    MissingExtraError,
    NotPSDError,
    NumericalWarning,
    ParameterError,
    PrecisionWarning,
    ResourceError,
    ShapeError,
)
from ._inputs import precision
from ._module import Parameterised
from ._parameters import interval, non_negative, positive, positive_integer, real
from .gp import (
    AbstractMean,
    ConstantMean,
    FitResult,
    GaussianProcess,
    LinearMean,
    Posterior,
    ZeroMean,
    fit,
)
from .io import load, save
from .kernels import (
    AbstractKernel,
    ActiveDimsKernel,
    ARDKernel,
    ConstantKernel,
    LinearKernel,
    Matern12Kernel,
    Matern32Kernel,
    Matern52Kernel,
    NegKernel,
    PeriodicKernel,
    PowerKernel,
    ProductKernel,
    RationalQuadraticKernel,
    RBFKernel,
    SEKernel,
    StaticAbstractKernel,
    StationaryKernel,
    SumKernel,
    WhiteNoiseKernel,
    WrapperKernel,
)
from .linalg import Dense, Status, mvn_log_density

__version__ = _version("kernax-gp")

__all__ = [
    "ARDKernel",
    "AbstractKernel",
    "AbstractMean",
    "ActiveDimsKernel",
    "ConstantKernel",
    "ConstantMean",
    "ConvergenceError",
    "ConvergenceWarning",
    "DTypeError",
    "Dense",
    "FitResult",
    "FormatError",
    "GaussianProcess",
    "InputError",
    "KernaxError",
    "KernaxWarning",
    "LinearKernel",
    "LinearMean",
    "Matern12Kernel",
    "Matern32Kernel",
    "Matern52Kernel",
    "MissingExtraError",
    "NegKernel",
    "NotPSDError",
    "NumericalWarning",
    "ParameterError",
    "Parameterised",
    "PeriodicKernel",
    "Posterior",
    "PowerKernel",
    "PrecisionWarning",
    "ProductKernel",
    "RBFKernel",
    "RationalQuadraticKernel",
    "ResourceError",
    "SEKernel",
    "ShapeError",
    "StaticAbstractKernel",
    "StationaryKernel",
    "Status",
    "SumKernel",
    "WhiteNoiseKernel",
    "WrapperKernel",
    "ZeroMean",
    "fit",
    "interval",
    "load",
    "mvn_log_density",
    "non_negative",
    "positive",
    "positive_integer",
    "precision",
    "real",
    "save",
]
