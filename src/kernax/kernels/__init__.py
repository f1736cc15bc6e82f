"""Kernels: one formula each, and every matrix from it."""

from ._arc_cosine import ArcCosineKernel
from ._base import AbstractKernel, StaticAbstractKernel
from ._batch import BatchKernel
from ._brownian import BrownianKernel, FractionalBrownianKernel
from ._change_point import ChangePointKernel
from ._compose import NegKernel, PowerKernel, ProductKernel, SumKernel, WrapperKernel
from ._dot_product import LinearKernel, PolynomialKernel, SigmoidKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._function import FunctionKernel, kernel, static
from ._gamma_exponential import GammaExponentialKernel
from ._gibbs import GibbsKernel
from ._matern import Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel
from ._periodic import PeriodicKernel
from ._random_features import RandomFeatures, random_features
from ._similarity import HammingKernel, TanimotoKernel
from ._spectral_density import spectral_density
from ._spectral_mixture import CosineKernel, SpectralMixtureKernel
from ._stationary import RationalQuadraticKernel, RBFKernel, SEKernel, StationaryKernel
from ._tie import TiedKernel, tie
from ._transforms import ActiveDimsKernel, ARDKernel
from ._warped import WarpedKernel
from ._wendland import WendlandKernel

__all__ = [
    "ARDKernel",
    "AbstractKernel",
    "ActiveDimsKernel",
    "ArcCosineKernel",
    "BatchKernel",
    "BrownianKernel",
    "ChangePointKernel",
    "ConstantKernel",
    "CosineKernel",
    "FractionalBrownianKernel",
    "FunctionKernel",
    "GammaExponentialKernel",
    "GibbsKernel",
    "HammingKernel",
    "LinearKernel",
    "Matern12Kernel",
    "Matern32Kernel",
    "Matern52Kernel",
    "MaternKernel",
    "NegKernel",
    "PeriodicKernel",
    "PolynomialKernel",
    "PowerKernel",
    "ProductKernel",
    "RBFKernel",
    "RandomFeatures",
    "RationalQuadraticKernel",
    "SEKernel",
    "SigmoidKernel",
    "SpectralMixtureKernel",
    "StaticAbstractKernel",
    "StationaryKernel",
    "SumKernel",
    "TanimotoKernel",
    "TiedKernel",
    "WarpedKernel",
    "WendlandKernel",
    "WhiteNoiseKernel",
    "WrapperKernel",
    "kernel",
    "random_features",
    "spectral_density",
    "static",
    "tie",
]
