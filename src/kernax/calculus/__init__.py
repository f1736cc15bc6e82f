"""Linear operators on kernels: derivatives, integrals, and what can be made of them."""

from ._apply import AppliedKernel, apply
from ._differential import Derivative, DirectionalDerivative, Gradient, Identity, Laplacian
from ._integral import Average, Integral
from ._operators import LinearOperator

__all__ = [
    "AppliedKernel",
    "Average",
    "Derivative",
    "DirectionalDerivative",
    "Gradient",
    "Identity",
    "Integral",
    "Laplacian",
    "LinearOperator",
    "apply",
]
