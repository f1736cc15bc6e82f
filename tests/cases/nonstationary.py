"""Kernels whose covariance depends on the place, and kernels of transformed inputs."""

import numpy as np

import kernax as kx
from tests.cases import Case

T = kx.transforms
SE, M32, LIN, WN = kx.SEKernel, kx.Matern32Kernel, kx.LinearKernel, kx.WhiteNoiseKernel
GIBBS, CHANGE, WARPED, ARD = kx.GibbsKernel, kx.ChangePointKernel, kx.WarpedKernel, kx.ARDKernel
L2 = np.array([0.7, 1.9])
A, ROWS = np.array([0.3, -0.2]), np.array([[0.3, 0.1], [-0.2, 0.4]])
TO_THREE = np.array([[1.0, 0.2], [-0.4, 0.7], [0.3, 1.5]])


def se(x, y, scale=1.0):
    return np.exp(-np.sum(((x - y) / scale) ** 2) / 2)


def m32(x, y, scale=1.0):
    t = np.sqrt(3 * np.sum(((x - y) / scale) ** 2))
    return (1 + t) * np.exp(-t)


def gibbs(x, y, scale):
    """In every dimension by itself, which for one length-scale is the same thing."""
    p, q = (np.broadcast_to(scale(z), z.shape) for z in (x, y))
    factors = np.sqrt(2 * p * q / (p**2 + q**2)) * np.exp(-((x - y) ** 2) / (p**2 + q**2))
    return np.prod(factors)


def change(x, y, left, right, at, steepness, dim=0):
    s, t = (1 / (1 + np.exp(-steepness * (z[dim] - at))) for z in (x, y))
    return (1 - s) * left * (1 - t) + s * right * t


def circle(x, period):
    return np.concatenate([f(2 * np.pi * x / period) for f in (np.cos, np.sin)])


def scale(z):
    return np.exp(np.dot(A, z) - 0.4)


def scales(z):
    return np.exp(np.dot(ROWS, z) + np.array([-0.4, 0.2]))


def chain(z):
    return np.exp(np.dot([0.2, -0.3, 0.1], TO_THREE @ z))


ONE, EACH = T.LogLinear(A, -0.4), T.LogLinear(ROWS, [-0.4, 0.2])
CHAIN = T.Chain(T.Linear(TO_THREE), T.LogLinear([0.2, -0.3, 0.1]))

CASES: dict[str, Case] = {
    "gibbs": Case(GIBBS(ONE), lambda x, y: gibbs(x, y, scale)),
    "gibbs per dimension": Case(
        GIBBS(EACH) * LIN(1.4, 0.3) + 0.5,
        lambda x, y: gibbs(x, y, scales) * 1.4 * np.dot(x - 0.3, y - 0.3) + 0.5,
    ),
    "ard of gibbs": Case(ARD(GIBBS(ONE), L2), lambda x, y: gibbs(x / L2, y / L2, scale)),
    "change point with noise": Case(
        CHANGE(SE(0.6) + WN(0.4), LIN(1.4) + WN(0.1), 0.2, 3.0),
        lambda x, y: change(x, y, se(x, y, 0.6), 1.4 * np.dot(x, y), 0.2, 3.0),
        lambda x: change(x, x, 1.4, 1.4 * np.dot(x, x) + 0.1, 0.2, 3.0),
    ),
    "two change points": Case(
        CHANGE(SE(0.6), CHANGE(M32(1.2), 2.0, 0.5, 4.0, dim=-1), -0.3, 2.0, dim=0),
        lambda x, y: change(
            x, y, se(x, y, 0.6), change(x, y, m32(x, y, 1.2), 2.0, 0.5, 4.0, 1), -0.3, 2.0
        ),
    ),
    "ard of a change point": Case(
        ARD(CHANGE(SE(5.0), M32(5.0) + WN(0.4), 0.2, 3.0, dim=1), L2),
        lambda x, y: change(x / L2, y / L2, se(x, y, L2), m32(x, y, L2), 0.2, 3.0, 1),
        lambda x: change(x / L2, x / L2, 1.0, 1.4, 0.2, 3.0, 1),
    ),
    "warped onto circles": Case(
        WARPED(M32(1.3), T.Periodic([0.9, 2.1])),
        lambda x, y: m32(*(circle(z, np.array([0.9, 2.1])) for z in (x, y)), 1.3),
    ),
    "warped by a chain, with noise": Case(
        WARPED((LIN(1.4, 0.3) + WN(0.4)) ** 2, CHAIN),
        lambda x, y: (1.4 * np.prod([chain(z) - 0.3 for z in (x, y)])) ** 2,
        lambda x: (1.4 * (chain(x) - 0.3) ** 2 + 0.4) ** 2,
    ),
    "ard of warped kernels": Case(
        ARD(2.0 * WARPED(SE(5.0), EACH) + SE(5.0) * CHANGE(1.0, 2.0, 0.2, 3.0), L2),
        lambda x, y: (
            2.0 * se(scales(x / L2), scales(y / L2))
            + se(x, y, L2) * change(x / L2, y / L2, 1.0, 2.0, 0.2, 3.0)
        ),
    ),
    "a change point of a warped coordinate": Case(
        WARPED(CHANGE(SE(0.6), SE(1.2), 1.0, 3.0), EACH),
        lambda x, y: change(
            scales(x), scales(y), *(se(scales(x), scales(y), s) for s in (0.6, 1.2)), 1.0, 3.0
        ),
    ),
}
