"""One table of kernels, nested composites included, each with an independent line of NumPy.

``reference(x, y)`` is the formula on two points of dimension 2, without white noise, in plain
Python floats or mpmath numbers alike.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import kernax as kx
from tests.cases import Case, nonstationary, products, stationary


class Laplacian(kx.AbstractKernel):
    """A user's kernel: one field, one formula."""

    rate: Array = kx.positive(1.0)

    def pairwise(self, x, y):
        return jnp.exp(-self.rate * jnp.sum(jnp.abs(x - y)))


class Tilted(kx.WrapperKernel):
    """A user's wrapper: a formula on top of another kernel."""

    slope: Array = kx.real(0.5)

    def pairwise(self, x, y):
        tilt = lambda z: 1.0 + self.slope * z[0]
        return tilt(x) * self.inner_kernel.pairwise(x, y) * tilt(y)


class StaticCosine(kx.StaticAbstractKernel):
    @classmethod
    def pairwise_cov(cls, kern, x1, x2):
        return jnp.cos((x1[0] - x2[0]) / kern.length_scale)


class Cosine(kx.AbstractKernel):
    """A user's kernel in two classes."""

    length_scale: Array = eqx.field(converter=jnp.asarray)
    static_class = StaticCosine

    def __init__(self, length_scale):
        super().__init__()
        self.length_scale = length_scale


def r(x, y, scale):
    return np.linalg.norm((np.asarray(x) - np.asarray(y)) / np.asarray(scale))


def se(x, y, scale):
    return np.exp(-0.5 * r(x, y, scale) ** 2)


def m12(x, y, scale):
    return np.exp(-r(x, y, scale))


def m32(x, y, scale):
    t = np.sqrt(3) * r(x, y, scale)
    return (1 + t) * np.exp(-t)


def m52(x, y, scale):
    t = np.sqrt(5) * r(x, y, scale)
    return (1 + t + t**2 / 3) * np.exp(-t)


def rq(x, y, scale, alpha):
    return (1 + r(x, y, scale) ** 2 / (2 * alpha)) ** -alpha


def periodic(x, y, scale, period):
    s = np.sin(np.pi * (np.asarray(x) - np.asarray(y)) / np.asarray(period))
    return np.exp(-2 * np.sum((s / np.asarray(scale)) ** 2))


def linear(x, y, variance, offset):
    return variance * np.dot(np.asarray(x) - offset, np.asarray(y) - offset)


SE, M12, M32, M52 = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel, kx.Matern52Kernel
RQ, PER, LIN = kx.RationalQuadraticKernel, kx.PeriodicKernel, kx.LinearKernel
WN, CONST = kx.WhiteNoiseKernel, kx.ConstantKernel
ARD, DIMS = kx.ARDKernel, kx.ActiveDimsKernel
L2 = np.array([0.7, 1.9])

CASES: dict[str, Case] = {
    "se": Case(SE(0.6), lambda x, y: se(x, y, 0.6)),
    "se per dimension": Case(SE([0.7, 1.9]), lambda x, y: se(x, y, L2)),
    "matern12": Case(M12(0.6), lambda x, y: m12(x, y, 0.6), smooth=False),
    "matern32": Case(M32(0.6), lambda x, y: m32(x, y, 0.6)),
    "matern52": Case(M52(0.6), lambda x, y: m52(x, y, 0.6)),
    "matern52 per dimension": Case(M52([0.7, 1.9]), lambda x, y: m52(x, y, L2)),
    "rational quadratic": Case(RQ(0.6, 1.7), lambda x, y: rq(x, y, 0.6, 1.7)),
    "periodic": Case(PER(1.3, 0.9), lambda x, y: periodic(x, y, 1.3, 0.9)),
    "periodic per dimension": Case(
        PER([0.7, 1.9], [0.9, 2.1]), lambda x, y: periodic(x, y, L2, [0.9, 2.1])
    ),
    "constant": Case(CONST(2.5), lambda x, y: 2.5),
    "linear": Case(LIN(1.4, 0.3), lambda x, y: linear(x, y, 1.4, 0.3)),
    "linear per dimension": Case(
        LIN(1.4, [0.3, -0.2]), lambda x, y: linear(x, y, 1.4, np.array([0.3, -0.2]))
    ),
    "white noise": Case(WN(0.4), lambda x, y: 0.0, lambda x: 0.4),
    "scaled": Case(3.0 * SE(0.6), lambda x, y: 3 * se(x, y, 0.6)),
    "sum": Case(SE(0.6) + M32(1.2), lambda x, y: se(x, y, 0.6) + m32(x, y, 1.2)),
    "product": Case(SE(0.6) * LIN(), lambda x, y: se(x, y, 0.6) * linear(x, y, 1, 0)),
    "sum in a product": Case(
        SE(2.0) * (M52(0.6) + PER(1.3, 0.9)),
        lambda x, y: se(x, y, 2.0) * (m52(x, y, 0.6) + periodic(x, y, 1.3, 0.9)),
    ),
    "product in a sum": Case(
        SE(2.0) * M52(0.6) + PER(1.3, 0.9),
        lambda x, y: se(x, y, 2.0) * m52(x, y, 0.6) + periodic(x, y, 1.3, 0.9),
    ),
    "difference": Case(3.0 - SE(0.6), lambda x, y: 3 - se(x, y, 0.6)),
    "negative factor": Case(-2.0 * SE(0.6), lambda x, y: -2 * se(x, y, 0.6)),
    "power of a sum": Case((SE(0.6) + 0.5) ** 3, lambda x, y: (se(x, y, 0.6) + 0.5) ** 3),
    "power of a sum with noise": Case(
        (SE(0.6) + WN(0.4)) ** 2, lambda x, y: se(x, y, 0.6) ** 2, lambda x: 1.4**2
    ),
    "noise times a kernel": Case(
        LIN() * WN(0.4) + SE(1.0),
        lambda x, y: se(x, y, 1.0),
        lambda x: 0.4 * linear(x, x, 1, 0) + 1,
    ),
    "active dims": Case(DIMS(M52(0.6), [1]), lambda x, y: m52(x[1:], y[1:], 0.6)),
    "active dims of a product": Case(
        DIMS(SE(0.6) * LIN(1.4, 0.3), [-1]),
        lambda x, y: se(x[1:], y[1:], 0.6) * linear(x[1:], y[1:], 1.4, 0.3),
    ),
    "swapped dims": Case(DIMS(SE([0.7, 1.9]), [1, 0]), lambda x, y: se(x[::-1], y[::-1], L2)),
    "ard": Case(ARD(SE(5.0), L2), lambda x, y: se(x, y, L2)),
    "ard of a sum": Case(
        ARD(SE(5.0) + 2.0 * RQ(5.0, 1.7), L2), lambda x, y: se(x, y, L2) + 2 * rq(x, y, L2, 1.7)
    ),
    "ard of a periodic": Case(
        ARD(PER(5.0, 0.9), L2), lambda x, y: periodic(x / L2, y / L2, 1.0, 0.9)
    ),
    "ard of a linear": Case(ARD(LIN(1.4, 0.3), L2), lambda x, y: linear(x / L2, y / L2, 1.4, 0.3)),
    "ard of active dims": Case(
        ARD(DIMS(M32(5.0), [1]) * SE(2.0), L2),
        lambda x, y: m32(x[1:], y[1:], 1.9) * se(x, y, L2),
    ),
    "ard of ard": Case(ARD(ARD(SE(5.0), L2), [2.0, 0.5]), lambda x, y: se(x, y, L2 * [2.0, 0.5])),
    "active dims of ard": Case(
        DIMS(ARD(M52(5.0), [1.9]), [1]), lambda x, y: m52(x[1:], y[1:], 1.9)
    ),
    "ard of white noise": Case(
        ARD(SE(5.0) + WN(0.4), L2), lambda x, y: se(x, y, L2), lambda x: 1.4
    ),
    "a user's kernel": Case(
        Laplacian(0.8), lambda x, y: np.exp(-0.8 * np.sum(np.abs(x - y))), smooth=False
    ),
    "a user's wrapper": Case(
        Tilted(M32(0.6) + WN(0.4), 0.3),
        lambda x, y: (1 + 0.3 * x[0]) * m32(x, y, 0.6) * (1 + 0.3 * y[0]),
        lambda x: (1 + 0.3 * x[0]) ** 2 * 1.4,
    ),
    "a user's kernel in two classes": Case(Cosine(0.6), lambda x, y: np.cos((x[0] - y[0]) / 0.6)),
    "ard of a user's kernels": Case(
        ARD(Cosine(5.0) + Tilted(SE(5.0), 0.3), L2),
        lambda x, y: (
            np.cos((x[0] - y[0]) / 0.7)
            + (1 + 0.3 * x[0] / 0.7) * se(x, y, L2) * (1 + 0.3 * y[0] / 0.7)
        ),
    ),
    "mauna loa": Case(
        66.0**2 * SE(67.0)
        + 2.4**2 * SE(90.0) * PER(1.3, 1.0)
        + 0.66**2 * RQ(1.2, 0.78)
        + 0.18**2 * SE(1.6),
        lambda x, y: (
            66.0**2 * se(x, y, 67.0)
            + 2.4**2 * se(x, y, 90.0) * periodic(x, y, 1.3, 1.0)
            + 0.66**2 * rq(x, y, 1.2, 0.78)
            + 0.18**2 * se(x, y, 1.6)
        ),
    ),
}
SPINE = list(CASES)
CASES |= products.CASES | stationary.CASES | nonstationary.CASES

NAMES = list(CASES)
# One of each sort, where a test compiles much.
VARIED = [
    "se per dimension",
    "matern12",
    "rational quadratic",
    "periodic per dimension",
    "linear",
    "power of a sum with noise",
    "active dims of a product",
    "ard of active dims",
    "a user's wrapper",
    "ard of a user's kernels",
]
# One of each family of the rest of the catalogue.
FAMILIES = [
    "wendland 1",
    "gamma-exponential per dimension",
    "spectral mixture",
    "arc-cosine of squared ramps, per dimension",
    "hamming",
    "rough brownian",
    "gibbs per dimension",
    "change point with noise",
    "warped by a chain, with noise",
]
# With them, every class of the catalogue is there or inside one that is.
OTHERS = [
    "matern12",
    "matern52",
    "rational quadratic",
    "periodic per dimension",
    "linear",
    "ard of active dims",
    "constant",
    "white noise",
    "matern of nu 3.5",
    "cosine",
    "brownian",
    "polynomial",
    "tanimoto",
]
POSITIVE = [name for name in NAMES if name not in ("difference", "negative factor")]


def gram_reference(case: Case, X, Y=None):
    """The matrix by a double loop; with Y None, white noise is on the diagonal."""
    Z = X if Y is None else Y
    K = np.array([[case.reference(x, y) for y in Z] for x in X], float).reshape(len(X), len(Z))
    if Y is None and case.noise is not None:
        K[np.diag_indices(len(X))] = [case.noise(x) for x in X]
    return K
