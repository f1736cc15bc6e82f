"""Kernels of the inner product, of similarity, and Brownian motions.

The sigmoid kernel, which is no covariance, is in `tests/kernels/test_products.py` instead.
"""

import mpmath as mp
import numpy as np

import kernax as kx
from tests.cases import Case


def polynomial(x, y, degree, gamma, constant):
    return (gamma * np.dot(x, y) + constant) ** degree


def arc_cosine(x, y, order, weight, bias):
    u, v = (np.append(np.sqrt(weight) * np.asarray(z), np.sqrt(bias)) for z in (x, y))
    t = np.arctan2(np.linalg.norm(np.cross(u, v)), np.dot(u, v))  # u and v have 3 coordinates
    s, c = np.sin(t), np.cos(t)
    J = [np.pi - t, s + (np.pi - t) * c, 3 * s * c + (np.pi - t) * (1 + 2 * c**2)][order]
    return (np.linalg.norm(u) * np.linalg.norm(v)) ** order * J / np.pi


def tanimoto(x, y):
    return np.dot(x, y) / (np.dot(x, x) + np.dot(y, y) - np.dot(x, y))


def hamming(x, y, scale):
    return np.exp(-np.sum((np.asarray(x) != np.asarray(y)) / np.asarray(scale)))


def brownian(x, y, hurst, variance):
    norm = lambda z: np.linalg.norm(z) ** (2 * hurst)
    return variance * (norm(x) + norm(y) - norm(np.asarray(x) - np.asarray(y))) / 2


POLY, ARC, HAMMING = kx.PolynomialKernel, kx.ArcCosineKernel, kx.HammingKernel
BM, FBM = kx.BrownianKernel, kx.FractionalBrownianKernel
ARD, DIMS = kx.ARDKernel, kx.ActiveDimsKernel
L2 = np.array([0.7, 1.9])

CASES: dict[str, Case] = {
    "polynomial": Case(POLY(3, 0.7, 1.3), lambda x, y: polynomial(x, y, 3, 0.7, 1.3)),
    "arc-cosine of steps": Case(
        ARC(0, 0.8, 1.3), lambda x, y: arc_cosine(x, y, 0, 0.8, 1.3), smooth=False
    ),
    "arc-cosine of squared ramps, per dimension": Case(
        ARC(2, [0.8, 0.2], 1.3), lambda x, y: arc_cosine(x, y, 2, np.array([0.8, 0.2]), 1.3)
    ),
    "tanimoto": Case(kx.TanimotoKernel(), tanimoto),
    "hamming": Case(HAMMING(0.6), lambda x, y: hamming(x, y, 0.6), smooth=False),
    "brownian": Case(BM(1.4), lambda x, y: brownian(x, y, 0.5, 1.4), smooth=False),
    "rough brownian": Case(FBM(0.2, 1.4), lambda x, y: brownian(x, y, 0.2, 1.4), smooth=False),
    "active dims of a brownian times a hamming": Case(
        DIMS(BM(1.4), [1]) * DIMS(HAMMING(0.6), [0]),
        lambda x, y: brownian(x[1:], y[1:], 0.5, 1.4) * hamming(x[:1], y[:1], 0.6),
        smooth=False,
    ),
    "ard of an arc-cosine": Case(
        ARD(ARC(1, 0.8, 1.3), L2), lambda x, y: arc_cosine(x / L2, y / L2, 1, 0.8, 1.3)
    ),
    "ard of a polynomial times a tanimoto": Case(
        ARD(POLY() * kx.TanimotoKernel(), L2),
        lambda x, y: polynomial(x / L2, y / L2, 2, 1, 1) * tanimoto(x / L2, y / L2),
    ),
    "ard of a hamming and a persistent brownian": Case(
        ARD(HAMMING(5.0) + FBM(0.58, 1.4), L2),
        lambda x, y: hamming(x, y, L2) + brownian(x / L2, y / L2, 0.58, 1.4),
        smooth=False,
    ),
}


# --- the same in as many digits as mpmath is set to ---------------------------------------------


def dot(x, y):
    return mp.fsum(a * b for a, b in zip(x, y, strict=True))


def exact_arc_cosine(x, y, order, weight, bias):
    u, v = ([*(mp.sqrt(weight) * a for a in z), mp.sqrt(bias)] for z in (x, y))
    sine = mp.sqrt(max(dot(u, u) * dot(v, v) - dot(u, v) ** 2, 0))
    t = mp.atan2(sine, dot(u, v))
    s, c, rest = mp.sin(t), mp.cos(t), mp.pi - t
    J = [rest, s + rest * c, 3 * s * c + rest * (1 + 2 * c**2)][order]
    return (dot(u, u) * dot(v, v)) ** (mp.mpf(order) / 2) * J / mp.pi


def exact_tanimoto(x, y):
    total = dot(x, x) + dot(y, y) - dot(x, y)
    return dot(x, y) / total if total else mp.mpf(1)


def exact_brownian(x, y, hurst, variance):
    power = lambda z: dot(z, z) ** hurst if any(z) else mp.mpf(0)
    apart = [a - b for a, b in zip(x, y, strict=True)]
    return variance * (power(x) + power(y) - power(apart)) / 2


KERNELS = {
    "polynomial": POLY(3, 0.7, 1.3),
    "steps": ARC(0, 0.7, 1.3),
    "ramps": ARC(1, 0.7, 1.3),
    "squared ramps": ARC(2, 0.7, 1.3),
    "tanimoto": kx.TanimotoKernel(),
    "hamming": kx.HammingKernel(0.7),
    "brownian": kx.BrownianKernel(1.4),
    "rough brownian": FBM(0.1, 1.4),
    "persistent brownian": FBM(0.9, 1.4),
}

# On mpmath points and hyperparameters.
EXACT = {
    "polynomial": lambda x, y, g, c: (g * dot(x, y) + c) ** 3,
    "steps": lambda x, y, w, b: exact_arc_cosine(x, y, 0, w, b),
    "ramps": lambda x, y, w, b: exact_arc_cosine(x, y, 1, w, b),
    "squared ramps": lambda x, y, w, b: exact_arc_cosine(x, y, 2, w, b),
    "tanimoto": exact_tanimoto,
    "brownian": lambda x, y, v: exact_brownian(x, y, mp.mpf(1) / 2, v),
    "rough brownian": exact_brownian,
    "persistent brownian": exact_brownian,
}


def awkward_points(rng, dtype):
    """Of all sizes, at 0, coincident, close, opposite, nearly so, and far from 0."""
    X = rng.normal(size=(12, 2)) * 10.0 ** rng.uniform(-6, 6, (12, 1))
    X[1], X[2], X[3], X[4] = X[0], X[0] * (1 + 1e-6), -X[0], -X[0] * (1 + 1e-6)
    X[5], X[6], X[7] = 0, 1e6, 1e6 + np.arange(2)
    return X.astype(dtype)


def multiprecise(values):
    return [mp.mpf(float(value)) for value in values]
