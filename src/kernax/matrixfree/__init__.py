"""Covariance matrices that are never formed: operators, and solvers that need only products."""

from ._contract import CovarianceOperator
from ._kernel_operator import KernelOperator

__all__ = ["CovarianceOperator", "KernelOperator"]
