"""Gaussian processes: prior, posterior, means and fitting."""

from ._defaults import default_priors, default_start
from ._fit import fit
from ._fit_result import FitResult
from ._free_space import unconstrained
from ._iterative_posterior import IterativePosterior
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
    "IterativePosterior",
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
