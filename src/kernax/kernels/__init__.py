"""Kernels: one formula each, and every matrix from it."""

from ._base import AbstractKernel, StaticAbstractKernel
from ._batch import BatchKernel
from ._compose import NegKernel, PowerKernel, ProductKernel, SumKernel, WrapperKernel
from ._dot_product import LinearKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._function import FunctionKernel, kernel, static
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel
from ._periodic import PeriodicKernel
from ._stationary import RationalQuadraticKernel, RBFKernel, SEKernel, StationaryKernel
from ._transforms import ActiveDimsKernel, ARDKernel

__all__ = [
    "ARDKernel",
    "AbstractKernel",
    "ActiveDimsKernel",
    "BatchKernel",
    "ConstantKernel",
    "FunctionKernel",
    "LinearKernel",
    "Matern12Kernel",
    "Matern32Kernel",
    "Matern52Kernel",
    "NegKernel",
    "PeriodicKernel",
    "PowerKernel",
    "ProductKernel",
    "RBFKernel",
    "RationalQuadraticKernel",
    "SEKernel",
    "StaticAbstractKernel",
    "StationaryKernel",
    "SumKernel",
    "WhiteNoiseKernel",
    "WrapperKernel",
    "kernel",
    "static",
]
