"""Stationary kernels: Matern of any half-integer, compact support, gamma-exponential, spectral."""

import numpy as np
from scipy.special import gamma, kv

import kernax as kx
from tests.cases import Case


def r(x, y, scale):
    return np.linalg.norm((np.asarray(x) - np.asarray(y)) / np.asarray(scale))


def matern(x, y, scale, nu):
    t = np.sqrt(2 * nu) * r(x, y, scale)
    return 2 ** (1 - nu) / gamma(nu) * t**nu * kv(nu, t) if t > 0 else 1.0


def wendland(x, y, scale, smoothness):
    """For d = 2 and 3, as in the tables of Rasmussen and Williams (2006), equation 4.21."""
    t = r(x, y, scale)
    return (
        max(1 - t, 0) ** [2, 4, 6][smoothness]
        * [1, 4 * t + 1, (35 * t**2 + 18 * t + 3) / 3][smoothness]
    )


def gamma_exponential(x, y, scale, power):
    return np.exp(-(r(x, y, scale) ** power))


def cosine(x, y, period):
    return np.cos(2 * np.pi * np.sum((np.asarray(x) - np.asarray(y)) / np.asarray(period)))


def mixture(x, y, weights, means, scales):
    t = np.asarray(x) - np.asarray(y)
    return sum(
        w * np.exp(-2 * np.pi**2 * np.sum((t * s) ** 2)) * np.cos(2 * np.pi * np.dot(t, m))
        for w, m, s in zip(weights, means, scales, strict=True)
    )


MAT, WEND, GE = kx.MaternKernel, kx.WendlandKernel, kx.GammaExponentialKernel
COS, SM, DIMS, ARD = (
    kx.CosineKernel,
    kx.SpectralMixtureKernel,
    kx.ActiveDimsKernel,
    kx.ARDKernel,
)
L2 = np.array([0.7, 1.9])
MIXTURE = ([0.6, 1.1], [[0.3, 0.8], [-0.5, 0.0]], [[0.2, 0.1], [0.15, 0.3]])
SCALED = tuple(np.asarray(part) / L2 for part in MIXTURE[1:])

CASES: dict[str, Case] = {
    "matern of nu 0.5": Case(MAT(0.6, 0.5), lambda x, y: matern(x, y, 0.6, 0.5), smooth=False),
    "matern of nu 3.5": Case(MAT(0.6, 3.5), lambda x, y: matern(x, y, 0.6, 3.5)),
    "matern of nu 20.5 per dimension": Case(MAT(L2, 20.5), lambda x, y: matern(x, y, L2, 20.5)),
    "wendland 0": Case(WEND(0, 2.1), lambda x, y: wendland(x, y, 2.1, 0), smooth=False),
    "wendland 1": Case(WEND(1, 2.1), lambda x, y: wendland(x, y, 2.1, 1)),
    "wendland 2 per dimension": Case(WEND(2, 3 * L2), lambda x, y: wendland(x, y, 3 * L2, 2)),
    "gamma-exponential": Case(
        GE(0.6, 1.4), lambda x, y: gamma_exponential(x, y, 0.6, 1.4), smooth=False
    ),
    "gamma-exponential per dimension": Case(
        GE(L2, 1.9), lambda x, y: gamma_exponential(x, y, L2, 1.9), smooth=False
    ),
    "cosine": Case(COS(0.9), lambda x, y: cosine(x, y, 0.9)),
    "cosine per dimension": Case(COS([0.9, 2.1]), lambda x, y: cosine(x, y, [0.9, 2.1])),
    "spectral mixture": Case(SM(*MIXTURE), lambda x, y: mixture(x, y, *MIXTURE)),
    "spectral mixture of one dimension": Case(
        DIMS(SM([0.6, 1.1], [0.3, 0.8], [0.2, 0.1]), [1]),
        lambda x, y: mixture(x[1:], y[1:], [0.6, 1.1], [[0.3], [0.8]], [[0.2], [0.1]]),
    ),
    "stationary kernels in a sum": Case(
        2.0 * MAT(0.6, 4.5) * COS(0.9) + WEND(2, 2.1),
        lambda x, y: 2 * matern(x, y, 0.6, 4.5) * cosine(x, y, 0.9) + wendland(x, y, 2.1, 2),
    ),
    "ard of stationary kernels": Case(
        ARD(MAT(5.0, 2.5) + WEND(1, 5.0) * COS(0.9) + SM(*MIXTURE), L2),
        lambda x, y: (
            matern(x, y, L2, 2.5)
            + wendland(x, y, L2, 1) * cosine(x, y, 0.9 * L2)
            + mixture(x, y, MIXTURE[0], *SCALED)
        ),
    ),
    "ard of a gamma-exponential of active dims": Case(
        ARD(DIMS(GE(5.0, 0.7), [1]), L2),
        lambda x, y: gamma_exponential(x[1:], y[1:], 1.9, 0.7),
        smooth=False,
    ),
}
