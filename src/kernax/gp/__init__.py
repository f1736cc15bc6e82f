"""Gaussian processes: prior, posterior, means and fitting."""

from ._fit import FitResult, fit
from ._means import AbstractMean, ConstantMean, LinearMean, ZeroMean
from ._posterior import Posterior
from ._process import GaussianProcess

__all__ = [
    "AbstractMean",
    "ConstantMean",
    "FitResult",
    "GaussianProcess",
    "LinearMean",
    "Posterior",
    "ZeroMean",
    "fit",
]
