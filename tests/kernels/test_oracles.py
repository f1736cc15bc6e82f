"""Other libraries as oracles, where they are right (neither is for a periodic kernel in d > 1)."""

import jax
import numpy as np
import pytest
from sklearn.gaussian_process import kernels as sk
from tinygp import kernels as tg
from tinygp.kernels.distance import L2Distance

import kernax as kx

pytestmark = pytest.mark.optimised

X = np.random.default_rng(3).normal(size=(11, 3))
T = X[:, :1]

CASES = {
    "se": (kx.SEKernel(0.7), sk.RBF(0.7), X),
    "se per dimension": (kx.SEKernel([0.7, 1.0, 2.0]), sk.RBF([0.7, 1.0, 2.0]), X),
    "matern12": (kx.Matern12Kernel(0.7), sk.Matern(0.7, nu=0.5), X),
    "matern32": (kx.Matern32Kernel(0.7), sk.Matern(0.7, nu=1.5), X),
    "matern52": (kx.Matern52Kernel(0.7), sk.Matern(0.7, nu=2.5), X),
    "matern52 by a wrapper": (
        kx.ARDKernel(kx.Matern52Kernel(), [0.7, 1.0, 2.0]),
        sk.Matern([0.7, 1.0, 2.0], nu=2.5),
        X,
    ),
    "rational quadratic": (
        kx.RationalQuadraticKernel(0.7, 1.3),
        sk.RationalQuadratic(0.7, 1.3),
        X,
    ),
    "periodic": (kx.PeriodicKernel(0.7, 1.3), sk.ExpSineSquared(0.7, 1.3), T),
    "linear": (kx.LinearKernel() + 0.49, sk.DotProduct(0.7), X),
    "noise": (kx.SEKernel(0.7) + kx.WhiteNoiseKernel(0.2), sk.RBF(0.7) + sk.WhiteKernel(0.2), X),
    "composite": (
        (2.0 * kx.SEKernel(0.7) + kx.Matern32Kernel(1.1)) ** 2 * kx.RationalQuadraticKernel(),
        (2.0 * sk.RBF(0.7) + sk.Matern(1.1, nu=1.5)) ** 2 * sk.RationalQuadratic(),
        X,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scikit_learn_agrees(name):
    ours, theirs, points = CASES[name]
    np.testing.assert_allclose(ours.gram(points), theirs(points), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.diagonal(points), theirs.diag(points), rtol=1e-12)
    cross = theirs(points[:4], points[4:])
    np.testing.assert_allclose(ours.gram(points[:4], points[4:]), cross, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (kx.SEKernel(0.7), tg.ExpSquared(0.7)),
        (kx.Matern32Kernel(0.7), tg.Matern32(0.7, distance=L2Distance())),
        (kx.Matern52Kernel(0.7), tg.Matern52(0.7, distance=L2Distance())),
        (
            kx.RationalQuadraticKernel(0.7, 1.3),
            tg.RationalQuadratic(0.7, alpha=1.3, distance=L2Distance()),
        ),
        (
            2.0 * kx.SEKernel(0.7) * kx.Matern12Kernel(1.1),
            2.0 * tg.ExpSquared(0.7) * tg.Exp(1.1, distance=L2Distance()),
        ),
    ],
)
def test_tinygp_agrees(ours, theirs):
    # It is not written for the strict promotion of this suite.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = theirs(X, X)
    np.testing.assert_allclose(ours.gram(X), expected, rtol=1e-10, atol=1e-14)
