"""Pathwise samples: functions with the moments of the posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx

RNG = np.random.default_rng(6)
X = np.sort(RNG.uniform(-3, 3, 10))
Y = np.sin(X) + 0.1 * RNG.normal(size=10)
XS = np.linspace(-4, 4, 6)
GP = kx.GaussianProcess(1.3 * kx.Matern52Kernel(0.7) + kx.WhiteNoiseKernel(0.01), 0.05, mean=0.3)


def test_moments_are_those_of_the_posterior():
    posterior, draws = GP.condition(X, Y), 3000
    paths = posterior.sample_paths(jax.random.key(0), draws, features=3000)
    values = np.asarray(paths(XS))
    assert values.shape == (draws, 6)
    C = np.asarray(posterior.covariance(XS))
    error = np.sqrt(np.diag(C) / draws)
    assert (np.abs(values.mean(axis=0) - posterior.mean(XS)) < 5 * error).all()
    # Of the products too; features add an error of k(0) / sqrt(features).
    spread = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / draws) + 1.3 / np.sqrt(3000)
    assert (np.abs(np.cov(values.T) - C) < 5 * spread).all()


def test_a_path_is_one_function():
    paths = GP.condition(X, Y, mask=np.arange(10) != 4).sample_paths(jax.random.key(1), (2, 3))
    values = paths(XS)
    assert values.shape == (2, 3, 6)
    np.testing.assert_allclose(paths(XS[::-1]), values[..., ::-1], rtol=1e-12)
    one = jax.jit(jax.value_and_grad(lambda t: paths(t[None])[1, 2, 0]))
    difference = one(0.3 + 1e-5)[0] - one(0.3 - 1e-5)[0]
    np.testing.assert_allclose(one(0.3)[1], difference / 2e-5, rtol=1e-6)
    single = GP.condition(X, Y).sample_paths(jax.random.key(1))
    assert jax.eval_shape(single, XS).shape == (6,)
    assert np.isnan(single([np.nan, 0.0])).tolist() == [True, False]


def test_without_noise_every_path_meets_the_observations():
    gp = kx.GaussianProcess(kx.SEKernel(0.7), 0.0)
    paths = gp.condition(X, Y).sample_paths(jax.random.key(0), (4,), features=500)
    np.testing.assert_allclose(paths(X), np.broadcast_to(Y, (4, 10)), atol=1e-6)


def test_what_has_no_paths():
    kernel = kx.kernel(lambda x, y: jnp.exp(-jnp.sum(jnp.abs(x - y))))
    own = kx.GaussianProcess(kernel).condition(X, Y)
    with pytest.raises(kx.ParameterError, match="random_features"):
        own.sample_paths(jax.random.key(0))
    with pytest.raises(kx.ParameterError, match="draws from one process with one target"):
        GP.condition(X, np.stack([Y, Y], axis=1)).sample_paths(jax.random.key(0))
    with pytest.raises(kx.ParameterError, match="`features` is 0, expected a whole number"):
        GP.condition(X, Y).sample_paths(jax.random.key(0), features=0)
