"""Precision: what happens to 64-bit data in a process that computes in 32 bits, and elsewhere."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax import _inputs

SE = kx.SEKernel(1.0)
SECONDS = 1.7e9 + np.array([0.0, 1.0, 100.0])


@pytest.fixture
def first_time(monkeypatch):
    """As in a new process, which has warned of nothing."""
    monkeypatch.setattr(_inputs, "_warned_of_precision", False)


def test_precision_reports_the_setting(x64_off):
    assert kx.precision() == np.float32
    with jax.enable_x64(True):
        assert kx.precision() == np.float64


def test_timestamps_keep_their_differences(x64_off):
    expected = np.exp(-0.5 * (SECONDS[:, None] - SECONDS) ** 2)
    K = SE.gram(SECONDS)
    assert K.dtype == jnp.float32
    tol = {"rtol": 0, "atol": 17 * np.finfo(np.float32).eps}
    np.testing.assert_allclose(K, expected, **tol)
    np.testing.assert_allclose(SE.gram(SECONDS, SECONDS[:2]), expected[:, :2], **tol)
    np.testing.assert_allclose(SE(SECONDS[:, None], SECONDS[1:2]), expected[:, 1], **tol)
    np.testing.assert_allclose(SE(SECONDS[0], SECONDS[1]), np.exp(-0.5), **tol)
    milliseconds = np.array([1_700_000_000_000, 1_700_000_000_001], np.int64)
    np.testing.assert_allclose(SE.gram(milliseconds)[0, 1], np.exp(-0.5), **tol)
    np.testing.assert_allclose(SE.gram(list(milliseconds))[0, 1], np.exp(-0.5), **tol)
    np.testing.assert_allclose(SE(int(milliseconds[0]), int(milliseconds[1])), np.exp(-0.5), **tol)


def test_each_column_is_centred_by_itself(x64_off):
    X = np.stack([SECONDS, [0.0, 0.5, 1.0]], axis=1)
    D = X[:, None] - X
    np.testing.assert_allclose(SE.gram(X), np.exp(-0.5 * (D**2).sum(-1)), atol=2e-6)


def test_padding_does_not_disturb_the_centring(x64_off):
    padded = np.append(SECONDS, np.nan)
    np.testing.assert_allclose(np.asarray(SE.gram(padded))[:3, :3], SE.gram(SECONDS), atol=2e-6)


def test_what_is_not_stationary_is_not_centred(x64_off, first_time):
    with pytest.warns(kx.PrecisionWarning, match="digits are lost"):
        K = kx.LinearKernel().gram(np.array([1e9 + 0.1, 2e9]))
    np.testing.assert_allclose(K[0, 1], 2e18, rtol=1e-6)


def test_one_warning_per_process_names_the_switch(x64_off, first_time):
    X = np.array([0.1, 0.2])
    with pytest.warns(kx.PrecisionWarning, match=r"`X` is float64 .*jax_enable_x64.*True"):
        SE.gram(X)
    SE.gram(X * 3)  # a second warning would be an error


def test_no_warning_where_no_digit_is_lost(x64_off, first_time):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SE.gram(np.array([0.5, 2.0]))
        SE.gram([1, 2, 3])
        SE.gram(np.array([0.1, 0.2], np.float32))


def test_data_that_are_rounded_already(x64_off):
    gp = kx.GaussianProcess(SE, 0.1)
    X, y = SECONDS.astype(np.float32), np.zeros(3, np.float32)
    with pytest.warns(kx.PrecisionWarning, match=r"`X` column 0 is float32.*128 apart.*Fix:"):
        gp.log_marginal_likelihood(X, y)


def test_nothing_is_said_with_64_bits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(SE.gram(SECONDS)[0, 1], np.exp(-0.5), rtol=1e-14)


def test_inputs_are_never_written_to():
    X = np.array([[0.0, np.nan], [1.0, 2.0]])
    X.flags.writeable = False
    before = X.copy()
    SE.gram(X)
    SE.gram(X, mask=[True, True])
    SE.diagonal(X)
    np.testing.assert_array_equal(X, before)
    on_device = jnp.asarray(before)
    SE.gram(on_device)
    np.testing.assert_array_equal(on_device, before)


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        ([1, 0], kx.DTypeError, r"`mask` has dtype int.*expected bool.*Fix:"),
        ([True], kx.ShapeError, r"`mask` has shape \(1,\), expected \(2,\)"),
        ([[True], [False]], kx.ShapeError, r"`mask` has shape \(2, 1\), expected \(2,\)"),
    ],
)
def test_masks_that_do_not_fit(mask, error, text):
    with pytest.raises(error, match=text):
        SE.gram(np.ones((2, 1)), mask=mask)


def test_a_second_mask_needs_a_second_set():
    with pytest.raises(kx.ShapeError, match="`mask2` was given without `X2`"):
        SE.gram(np.ones((2, 1)), mask2=[True, True])


def test_a_set_of_padding_only():
    X = np.full((2, 1), np.nan)
    assert np.isnan(np.asarray(SE.gram(X))).all()
    np.testing.assert_array_equal(SE.gram(X, mask=[True, True]), np.eye(2))
    np.testing.assert_array_equal(SE.gram(np.ones(2), mask=[False, False]), np.eye(2))
