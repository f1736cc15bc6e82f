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
    with pytest.raises(kx.ParameterError, match="`features` is 0, expected a whole number"):
        GP.condition(X, Y).sample_paths(jax.random.key(0), features=0)


def test_paths_of_several_targets_have_their_moments():
    """Independent functions, each of which meets its own observations."""
    values, draws = np.stack([Y, 2.0 * np.cos(X), -Y], axis=1), 2000
    posterior = GP.condition(X, values)
    found = posterior.sample_paths(jax.random.key(2), draws, features=2000)(XS)
    assert found.shape == (draws, 6, 3)
    C = np.asarray(posterior.covariance(XS))
    error = np.sqrt(np.diag(C) / draws)
    assert (np.abs(found.mean(axis=0) - posterior.mean(XS)) < 5 * error[:, None]).all()
    spread = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / draws) + 1.3 / np.sqrt(2000)
    for t in range(3):
        assert (np.abs(np.cov(found[..., t].T) - C) < 5 * spread).all()
        between = np.cov(found[..., t].T, found[..., (t + 1) % 3].T)[:6, 6:]
        assert (np.abs(between) < 5 * spread).all()
    exact = kx.GaussianProcess(kx.SEKernel(0.7), 0.0).condition(X, values)
    paths = exact.sample_paths(jax.random.key(0), (2, 4), features=500)
    np.testing.assert_allclose(paths(X), np.broadcast_to(values, (2, 4, 10, 3)), atol=1e-6)


def test_paths_of_a_batch_are_those_of_its_elements():
    """They meet the observations of each, without padded rows, at shared points and at own ones."""
    kernel = kx.BatchKernel(kx.SEKernel(1.0), 3, 0).replace(length_scale=[0.4, 0.6, 0.8])
    x = np.stack([X, X + 1.0, X - 1.0])[..., None]
    y = np.stack([Y, -Y, 2 * Y])
    x[1, 4:6] = np.nan
    posterior = kx.GaussianProcess(kernel, 1e-10).condition(x, y)
    paths = posterior.sample_paths(jax.random.key(0), (2,), features=400)
    own = np.asarray(paths(x))
    assert own.shape == (3, 2, 10)
    real = ~np.isnan(x[..., 0])
    for i in range(3):
        np.testing.assert_allclose(own[i][:, real[i]], np.tile(y[i, real[i]], (2, 1)), atol=1e-3)
        assert np.isnan(own[i][:, ~real[i]]).all()
    shared = paths(XS)
    assert shared.shape == (3, 2, 6)
    many = kx.GaussianProcess(kernel, 0.05).condition(x, y)
    found = np.asarray(many.sample_paths(jax.random.key(1), 2000, features=1000)(XS))
    C = np.asarray(many.covariance(XS))
    for i in range(3):
        error = np.sqrt(np.diag(C[i]) / 2000)
        assert (np.abs(found[i].mean(axis=0) - many.mean(XS)[i]) < 5 * error).all()
        spread = np.sqrt((np.outer(np.diag(C[i]), np.diag(C[i])) + C[i] ** 2) / 2000)
        assert (np.abs(np.cov(found[i].T) - C[i]) < 5 * spread + 5 / np.sqrt(1000)).all()
    # No two elements have the same draw from the prior.
    assert np.abs(np.corrcoef(found[0, :, 0], found[1, :, 0])[0, 1]) < 0.1
