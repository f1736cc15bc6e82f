"""Linear algebra in 32 bits beside 64, and the covariances that are singular there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx


def likelihood_and_slope(gp, x, y):
    likelihood = jax.jit(jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(x, y)))
    value, slopes = likelihood(gp)
    return value, slopes.hyperparameters


@pytest.mark.parametrize("noise", [0.1, 0.01])
def test_single_precision_agrees_with_double(noise, x64_off):
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 4, size=(40, 2)).astype(np.float32)
    y = np.sin(X.sum(axis=1)) + 0.1 * rng.normal(size=40).astype(np.float32)
    Xs = (X[:7] + np.float32(0.125)).astype(np.float32)
    build = lambda: kx.GaussianProcess(kx.Matern52Kernel(1.0) + 0.5 * kx.SEKernel(2.0), noise)
    single = build().condition(X, y)
    low, mean = single.log_marginal_likelihood, single.mean(Xs)
    assert low.dtype == mean.dtype == jnp.float32
    with jax.enable_x64(True):
        double = build().condition(X.astype(float), y.astype(float))
        K = np.asarray(double.gp.kernel.gram(X.astype(float))) + noise * np.eye(40)
        assert np.linalg.cond(K) < 1e4
        high, exact = double.log_marginal_likelihood, double.mean(Xs.astype(float))
    np.testing.assert_allclose(low, high, rtol=2e-3)
    np.testing.assert_allclose(mean, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())


def test_a_thousand_close_points_in_single_precision(x64_off):
    """Singular in 32 bits: the numbers are those of the matrix with the jitter that is reported."""
    x = np.asarray(jax.random.uniform(jax.random.key(0), (1000,)))
    gp = kx.GaussianProcess(kx.SEKernel(0.3), 0.0)
    with pytest.warns(kx.NumericalWarning, match="singular to working precision"):
        posterior = gp.condition(x, x)
    jitter = float(posterior.jitter)
    assert posterior.status == kx.Status.JITTERED
    assert 0 < jitter <= 1.01 * 1000 * 100 * np.finfo(np.float32).eps
    value, slopes = likelihood_and_slope(gp, x, x)
    with jax.enable_x64(True):
        wide = kx.GaussianProcess(kx.SEKernel(0.3), jitter)
        exact, expected = likelihood_and_slope(wide, x.astype(float), x.astype(float))
    np.testing.assert_allclose(value, exact, rtol=2e-3)
    path = "kernel.length_scale"
    np.testing.assert_allclose(slopes[path], expected[path], rtol=0.1)


def test_draws_of_what_is_no_covariance_are_refused():
    with pytest.raises(kx.NotPSDError, match="is not a covariance"):
        kx.GaussianProcess(kx.SigmoidKernel(2.0, -1.0), 0.0)
    with pytest.raises(kx.NotPSDError):
        kx.mvn_log_density([0.3, 0.1], [0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
