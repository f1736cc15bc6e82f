"""What processes and posteriors are given: points of other precision, copies, wrong arguments."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.gp import _process
from kernax.gp._data import as_data
from kernax.gp._elements import over_elements
from kernax.gp._problem import _log_likelihood

X = np.linspace(0.0, 10.0, 20)
Y = np.sin(X)
Y32 = Y.astype(np.float32)


@pytest.fixture
def single(x64_off):
    """A process in the precision that JAX has by default."""
    return kx.GaussianProcess(kx.SEKernel(1.0), 0.01)


def test_host_points_in_32_bits_stay_where_they_are(single):
    posterior = single.condition(X.astype(np.float32), Y32)
    on_device = posterior.mean(jnp.asarray([5.0, 5.5], jnp.float32))
    for points in ([5.0, 5.5], np.array([5.0, 5.5])):
        np.testing.assert_allclose(posterior.mean(points), on_device, rtol=1e-6)
    np.testing.assert_allclose(posterior.mean([5.0])[0], on_device[0], rtol=1e-5)
    np.testing.assert_allclose(on_device, np.sin([5.0, 5.5]), atol=0.02)
    np.testing.assert_allclose(posterior.variance([100.0, 101.0]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.diag(posterior.covariance([100.0])), 1.0, rtol=1e-6)


def test_timestamps_in_32_bits_are_predicted_where_they_are(single):
    t = 1.7e9 + X
    posterior = single.condition(t, Y32)
    np.testing.assert_allclose(posterior.mean([1.7e9 + 5.0]), np.sin(5.0), atol=0.02)
    np.testing.assert_allclose(posterior.mean(t), Y, atol=0.02)
    twin = pickle.loads(pickle.dumps(posterior))
    np.testing.assert_array_equal(twin.mean([1.7e9 + 5.0]), posterior.mean([1.7e9 + 5.0]))


def test_another_offset_compiles_nothing(single):
    single.log_marginal_likelihood(1e3 + X, Y32)
    before = _process._log_likelihood._cache_size()
    for offset in (2e3, 3e3, 4e3):
        single.log_marginal_likelihood(offset + X, Y32)
    assert _process._log_likelihood._cache_size() == before


def test_a_posterior_that_was_used_can_be_copied():
    posterior = kx.GaussianProcess(kx.SEKernel(1.0), 0.01).condition(X, Y)
    expected = posterior.mean(X[:3])
    for twin in (
        pickle.loads(pickle.dumps(posterior)),
        copy.copy(posterior),
        copy.deepcopy(posterior),
    ):
        np.testing.assert_array_equal(twin.mean(X[:3]), expected)


def test_masked_rows_under_debug_nans():
    gp, mask = kx.GaussianProcess(kx.Matern32Kernel(1.0), 0.1), np.arange(20) < 17
    plain = gp.log_marginal_likelihood(X[:17], Y[:17])
    with jax.debug_nans(True):
        np.testing.assert_allclose(gp.log_marginal_likelihood(X, Y, mask=mask), plain, rtol=1e-12)
        gradient = jax.grad(lambda g: g.log_marginal_likelihood(X, Y, mask=mask))(gp)
        assert np.isfinite(gradient.noise_variance)
        gp.condition(X, Y, mask=mask).mean(X[:2])


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda gp, p: gp.sample(0, X), kx.ParameterError, "`key` is 0, expected a key"),
        (lambda gp, p: p.sample(0, X), kx.ParameterError, "`key` is 0, expected a key"),
        (lambda gp, p: gp.sample(KEY, X, -1), kx.ParameterError, "`shape` is -1"),
        (lambda gp, p: gp.sample(KEY, X, (2.5,)), kx.ParameterError, r"`shape` is \(2.5,\)"),
        (lambda gp, p: p.mean(X, kernel=3.0), kx.ParameterError, r"`kernel` is 3\.0, expected"),
        (lambda gp, p: kx.fit(kx.SEKernel(), X, Y), kx.ParameterError, "`gp` is a SEKernel"),
        (lambda gp, p: kx.fit(gp, X, Y, priors=[1]), kx.ParameterError, "`priors` is a list"),
        (lambda gp, p: kx.fit(gp, X, Y, restarts=-1), kx.ParameterError, "`restarts` is -1"),
        (lambda gp, p: kx.fit(gp, X, Y, max_steps=1.5), kx.ParameterError, "`max_steps` is 1.5"),
        (lambda gp, p: kx.fit(gp, X, Y, key=0), kx.ParameterError, "`key` is 0"),
        (lambda gp, p: gp.log_marginal_likelihood(X, Y, nan="rase"), kx.ParameterError,
         "`nan` is 'rase', expected 'pad' or 'raise'"),
        (lambda gp, p: kx.GaussianProcess(kx.SEKernel(), None), kx.DTypeError,
         "`noise_variance` is None, expected a number"),
        (lambda gp, p: kx.GaussianProcess(kx.SEKernel(), mean=None), kx.DTypeError,
         "`value` is None, expected a number"),
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing(call, error, text):
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.01)
    with pytest.raises(error, match=text) as caught:
        call(gp, gp.condition(X, Y))
    assert "Fix:" in str(caught.value)


def test_one_number_is_a_shape():
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.01)
    assert gp.sample(KEY, X, 3).shape == (3, 20)
    np.testing.assert_array_equal(gp.sample(KEY, X, 3), gp.sample(KEY, X, (3,)))


@pytest.mark.parametrize("kind", ["nan", "mask", "both", "neither"])
def test_cleaning_once_changes_no_likelihood(kind):
    """Rows of NaN or out of the mask, one set without a real row, and none at all."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 6))
    real = np.array([[1, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 0], [0] * 6], bool) | (kind == "neither")
    mask = None
    if kind in ("nan", "both"):
        X[~real], y[~real] = np.nan, np.nan
    if kind in ("mask", "both"):
        mask = real.copy()
    if kind == "both":
        mask[0, 0] = False
    kernel = kx.BatchKernel(2.0 * kx.SEKernel(1.0), 3, 0)
    gp = kx.GaussianProcess(kernel, np.array([0.1, 0.2, 0.3]))
    data = as_data(gp, jnp.asarray(X), jnp.asarray(y), mask, "pad")
    clean = data.cleaned
    assert clean.finite
    assert clean.mask is None if kind == "neither" else not np.isnan(clean.X).any()
    likelihood = jax.jit(
        lambda data: over_elements(
            lambda gp, _, *arrays: _log_likelihood(gp, None, data.element(*arrays))[0],
            gp,
            *data.arrays,
        )
    )
    expected = gp.log_marginal_likelihood(X, y, mask=mask)
    np.testing.assert_allclose(likelihood(clean), expected, rtol=1e-13)
