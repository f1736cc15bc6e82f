"""Gaussian processes: prior, posterior, means and fitting."""

from ._defaults import default_priors, default_start
from ._fit import FitResult, fit
from ._free_space import unconstrained
from ._laplace import LaplaceApproximation
from ._means import AbstractMean, ConstantMean, LinearMean, ZeroMean
from ._paths import Paths
from ._posterior import LeaveOneOut, Posterior
from ._process import GaussianProcess

__all__ = [
    "AbstractMean",
    "ConstantMean",
    "FitResult",
    "GaussianProcess",
    "LaplaceApproximation",
    "LeaveOneOut",
    "LinearMean",
    "Paths",
    "Posterior",
    "ZeroMean",
    "default_priors",
    "default_start",
    "fit",
    "unconstrained",
]
