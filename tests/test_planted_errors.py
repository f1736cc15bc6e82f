"""Errors that Gaussian process code is known for, planted one by one: each turns a check red.

A check passes on Kernax as it is, and fails where the error is put in. Sets of points have a size
that no other test has, so that nothing compiled before, or here, is met again.
"""

import numpy as np
import pytest
from scipy import stats

import kernax as kx
from kernax.kernels import _derivatives
from kernax.linalg import DenseFactor, _lapack


def points(n):
    X = np.random.default_rng(0).uniform(0, 6, size=(n, 2))
    return X, np.sin(X[:, 0])


def density_of_many(n):
    """The likelihood of some hundred points, whose determinant is below the smallest number."""
    X, y = points(n)
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.01)
    K = np.asarray(gp.kernel.gram(X)) + 0.01 * np.eye(n)
    assert np.linalg.det(K) == 0.0
    expected = stats.multivariate_normal(np.zeros(n), K).logpdf(y)
    np.testing.assert_allclose(gp.log_marginal_likelihood(X, y), expected, rtol=1e-8)


def posterior_covariance(n):
    X, y = points(n)
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.1)
    found = np.asarray(gp.condition(X, y).covariance(X[:5] + 0.1))
    assert (np.diag(found) < 1.0).all()


def values_of_the_squared_exponential(n):
    X, _ = points(n)
    distance = np.linalg.norm(X[:, None] - X, axis=-1)
    np.testing.assert_allclose(kx.SEKernel(0.8).gram(X), np.exp(-0.5 * (distance / 0.8) ** 2))


def wendland_at_zero(n):
    X, _ = points(n)
    np.testing.assert_allclose(np.diag(kx.WendlandKernel(2, 1.5).gram(X, X)), 1.0)


def slopes_of_each_dimension(n):
    X, _ = points(n)
    assert kx.SEKernel(1.0).gradient(X[:, :1], X[:, :1]).shape == (n, n, 1)


def dimensions_out_of_range(n):
    X, _ = points(n)
    with pytest.raises(kx.ShapeError):
        kx.ActiveDimsKernel(kx.SEKernel(), [0, 5]).gram(X)


def length_scales_per_dimension(n):
    """Of a composite, and of parts that are not isotropic."""
    X, _ = points(n)
    scales = np.array([0.5, 2.0])
    inner = kx.SEKernel(1.0) + kx.LinearKernel()
    found = kx.ARDKernel(inner, scales).gram(X)
    np.testing.assert_allclose(found, inner.gram(X / scales), rtol=1e-9)


def plant_a_determinant(monkeypatch):
    correct = _lapack.factorise

    def wrong(routines, wanted, K, amounts, *ys):
        half_log_det = 0.5 * np.log(np.linalg.det(K))
        return half_log_det, *correct(routines, wanted, K, amounts, *ys)[1:]

    monkeypatch.setattr(_lapack, "factorise", wrong)


def plant_a_plus(monkeypatch):
    correct = DenseFactor.inverse_form
    monkeypatch.setattr(DenseFactor, "inverse_form", lambda self, B: -correct(self, B))


def plant_another_length_scale(monkeypatch):
    correct = kx.SEKernel.matrix
    monkeypatch.setattr(
        kx.SEKernel, "matrix", lambda self, X, Y: correct(self, X * 2**0.5, Y * 2**0.5)
    )


def plant_a_wendland_without_a_norm(monkeypatch):
    correct = kx.WendlandKernel.matrix
    monkeypatch.setattr(kx.WendlandKernel, "matrix", lambda self, X, Y: 3.0 * correct(self, X, Y))


def plant_a_squeeze(monkeypatch):
    correct = _derivatives._derivatives
    monkeypatch.setattr(_derivatives, "_derivatives", lambda *args: correct(*args).squeeze())


def plant_a_clamp(monkeypatch):
    """No check: an index beyond the end is then the last one, as everywhere in JAX."""
    monkeypatch.setattr(kx.ActiveDimsKernel, "check", lambda self, d: None)


def plant_one_isotropic_kernel(monkeypatch):
    """Length-scales that reach the first part of a composite only."""
    correct = kx.SumKernel.rescaled

    def wrong(self, scales):
        found = correct(self, scales)
        return type(found)(found.left_kernel, self.right_kernel)

    monkeypatch.setattr(kx.SumKernel, "rescaled", wrong)


PLANTED = {
    "log of a determinant": (density_of_many, plant_a_determinant, 401),
    "posterior covariance with a plus": (posterior_covariance, plant_a_plus, 43),
    "a length-scale that is none": (
        values_of_the_squared_exponential,
        plant_another_length_scale,
        41,
    ),
    "Wendland's function is 3 at 0": (wendland_at_zero, plant_a_wendland_without_a_norm, 41),
    "dimensions squeezed away": (slopes_of_each_dimension, plant_a_squeeze, 41),
    "dimensions clamped": (dimensions_out_of_range, plant_a_clamp, 41),
    "ARD of one kernel only": (length_scales_per_dimension, plant_one_isotropic_kernel, 41),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_error_is_found(name, monkeypatch):
    check, plant, n = PLANTED[name]
    check(n)
    plant(monkeypatch)
    with pytest.raises((AssertionError, kx.InputError, pytest.fail.Exception)):
        check(n + 1)
