"""Covariance matrices that are never formed: operators, and solvers that need only products."""

from ._conjugate_gradients import Solution, conjugate_gradients, relative
from ._contract import CovarianceOperator
from ._kernel_operator import KernelOperator
from ._kronecker import KroneckerOperator
from ._log_determinant import Estimate, log_determinant
from ._preconditioner import Preconditioner, preconditioner
from ._solver import Iterative
from ._toeplitz import ToeplitzOperator

__all__ = [
    "CovarianceOperator",
    "Estimate",
    "Iterative",
    "KernelOperator",
    "KroneckerOperator",
    "Preconditioner",
    "Solution",
    "ToeplitzOperator",
    "conjugate_gradients",
    "log_determinant",
    "preconditioner",
    "relative",
]
