"""Padding of any amount, at any place, with any filler; and sets of different lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.kernels import _gram

EPS = np.finfo(float).eps
COMPOSITE = 2.0 * kx.SEKernel(0.7) * kx.Matern32Kernel(0.9) + 0.5
BASE = np.random.default_rng(0).normal(size=(5, 2))


# P02
def test_forward_mode_through_nan_rows():
    X = np.vstack([BASE, [[np.nan, 0.0]]])
    along = jax.tree.map(jnp.ones_like, COMPOSITE)
    both = lambda k: (jnp.sum(k.gram(BASE)), jnp.nansum(k.gram(X)))
    slopes = jax.jit(lambda k, t: jax.jvp(both, (k,), (t,)))(COMPOSITE, along)
    plain, padded = zip(*slopes, strict=True)
    np.testing.assert_allclose(padded, plain, rtol=8 * EPS)


# P01, P06
def test_gradients_in_the_points_are_zero_at_padding_and_right_elsewhere():
    X = np.vstack([BASE[:2], [[np.nan, 0.3]], BASE[2:]])
    real = ~np.isnan(X).any(axis=1)
    out = jnp.asarray(np.random.default_rng(1).normal(size=(6, 6)))
    rows, k = np.flatnonzero(real), kx.Matern32Kernel(0.9)

    @jax.jit
    def slopes(X, Z):
        plain = jax.grad(lambda Z: jnp.sum(out[np.ix_(rows, rows)] * k.gram(Z)))
        forms = (
            lambda X: jnp.nansum(out * k.gram(X)),
            lambda X: jnp.sum(out * k.gram(X, mask=real)),
            lambda X: jnp.nansum(out * k.gram(X, X)),
        )
        return plain(Z), [jax.grad(form)(X) for form in forms]

    wanted, each = slopes(X, BASE)
    for found in each:
        np.testing.assert_allclose(found[rows], wanted, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(found[2], 0.0)


# P05: where n = d a mask that broadcasts along the wrong axis shows no error.
def test_one_missing_coordinate_where_there_are_as_many_points_as_dimensions():
    X = np.array([[0.0, 0.1, 0.2], [1.0, np.nan, 1.2], [2.0, 2.1, 2.2]])
    k = kx.SEKernel(1.0) + kx.SEKernel(2.0)
    K = np.asarray(k.gram(X, mask=[True] * 3))
    np.testing.assert_array_equal(K[1], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(K[:, 1], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(K[np.ix_([0, 2], [0, 2])], k.gram(X[[0, 2]]))
    missing = np.isin(np.arange(9), [1, 3, 4, 5, 7]).reshape(3, 3)
    np.testing.assert_array_equal(np.isnan(k.gram(X)), missing)
    np.testing.assert_array_equal(np.isnan(k.diagonal(X)), [False, True, False])


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def total(k, X, mask):
    K = k.gram(X, mask=mask)
    return jnp.sum(jnp.where(mask[:, None] & mask[None, :], jnp.sin(K), 0.0)), K


# P11
@pytest.mark.parametrize("amount", [1, 15])
def test_amount_place_and_filler_of_padding_change_nothing(amount):
    rng = np.random.default_rng(amount)
    (_, plain), wanted = total(COMPOSITE, BASE, np.ones(5, bool))
    for filler in (np.nan, 0.0, 1e30, np.inf, -1e300):
        X, place = np.full((5 + amount, 2), filler), np.sort(rng.permutation(5 + amount)[:5])
        X[place] = BASE
        mask = np.isin(np.arange(5 + amount), place)
        (_, K), gradient = total(COMPOSITE, X, mask)
        np.testing.assert_array_equal(np.asarray(K)[np.ix_(place, place)], plain)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=16 * EPS)


# P11, X01
@pytest.mark.parametrize("filler", [0.0, 1e300, np.nan, np.inf])
def test_a_filler_does_not_undo_the_centring(filler, x64_off):
    seconds = np.array([1.7e9, filler, 1.7e9 + 1])
    K = kx.SEKernel(1.0).gram(seconds, mask=[True, False, True])
    np.testing.assert_allclose(K[0, 2], np.exp(-0.5), rtol=1e-6)
    cross = kx.SEKernel(1.0).gram(seconds, seconds[[0, 2]], mask=[True, False, True])
    np.testing.assert_allclose(cross[0, 1], np.exp(-0.5), rtol=1e-6)


# P12
def test_masked_calls_are_clean_under_debug_nans():
    X, mask = np.array([0.0, np.nan, 2.0]), np.array([True, False, True])
    with jax.debug_nans(True):
        K = COMPOSITE.gram(np.stack([X, X], axis=1), mask=mask)
        traced = jax.jit(lambda k, X, m: jax.grad(lambda k: jnp.sum(k.gram(X, mask=m)))(k))
        gradient = traced(kx.Matern12Kernel(1.0), np.where(mask, X, 0.0), mask)
        cross = kx.Matern12Kernel(1.0).gram(X, X[[0, 2]], mask=mask)
    assert np.isfinite(K).all()
    assert np.isfinite(gradient.length_scale)
    assert np.isfinite(cross).all()


# P14
def test_a_mask_of_false_only_and_of_traced_values():
    X = np.arange(3.0)
    np.testing.assert_array_equal(COMPOSITE.gram(BASE, mask=[False] * 5), np.eye(5))
    total = lambda k: jnp.sum(k.gram(X, mask=np.zeros(3, bool)))
    gradient = jax.jit(jax.grad(total))(kx.SEKernel(1.0))
    assert gradient.length_scale == 0.0
    K = jax.jit(lambda a: kx.SEKernel(1.0).gram(X, mask=[a, a, ~a]))(True)
    np.testing.assert_array_equal(K[2], [0.0, 0.0, 1.0])


# --- sets of different lengths (B14) -------------------------------------------------------------


def test_sets_of_different_lengths_are_one_batch():
    X, y = kx.pad([BASE, BASE[:2], np.zeros((0, 2))], [np.ones(5), [2.0, 3.0], []])
    assert X.shape == (3, 8, 2)
    assert y.shape == (3, 8)
    np.testing.assert_array_equal(X[0, :5], BASE)
    np.testing.assert_array_equal(y[1, :2], [2.0, 3.0])
    assert np.isnan(X[1, 2:]).all()
    assert np.isnan(y[1, 2:]).all()
    K = kx.BatchKernel(COMPOSITE, 3, 0).gram(X)
    np.testing.assert_allclose(K[1, :2, :2], COMPOSITE.gram(BASE[:2]), rtol=1e-15)
    assert np.isnan(K[2]).all()


def test_a_padded_set_has_the_likelihood_of_the_set():
    X, y = kx.pad([BASE], [BASE[:, 0]])
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.1)
    plain, padded = (gp.log_marginal_likelihood(*of) for of in ((BASE, BASE[:, 0]), (X[0], y[0])))
    np.testing.assert_allclose(padded, plain, rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "size"), [(0, 8), (1, 8), (8, 8), (9, 10), (16, 16), (17, 20), (33, 40), (100, 112)]
)
def test_lengths_are_rounded_up_to_few_sizes(n, size):
    assert kx.pad([np.zeros(n), np.zeros(n // 2)]).shape == (2, size, 1)
    assert kx.pad([np.zeros(n)], size=n + 3).shape == (1, n + 3, 1)


def test_new_lengths_of_one_size_compile_nothing():
    k = kx.SEKernel(1.0)
    k.gram(kx.pad([np.arange(17.0)])[0])
    before = _gram._gram._cache_size()
    for n in (18, 19, 17):
        k.gram(kx.pad([np.arange(float(n))])[0])
    assert _gram._gram._cache_size() == before


def test_the_dtype_of_the_sets_is_kept():
    assert kx.pad([np.ones(2, np.float32), np.ones(3, np.float32)]).dtype == np.float32
    assert kx.pad([[1, 2], [True]]).dtype == np.float64
    assert kx.pad([jnp.ones(2), [1.0]]).dtype == np.float64
    X, y = kx.pad([np.ones(2)], [np.ones((2, 3))])
    assert (X.shape, y.shape) == ((1, 8, 1), (1, 8, 3))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: kx.pad([]), kx.ShapeError, "`X` is empty"),
        (lambda: kx.pad(BASE), kx.ShapeError, r"`X` has shape \(5, 2\), expected a list.*\[X\]"),
        (lambda: kx.pad(3.0), kx.ShapeError, r"`X` has shape \(\), expected a list"),
        (lambda: kx.pad([1.0, 2.0]), kx.ShapeError, r"`X\[0\]` has shape \(\)"),
        (lambda: kx.pad([[[1.0], [2.0, 3.0]]]), kx.ShapeError, r"`X\[0\]` is a ragged list"),
        (lambda: kx.pad([BASE, BASE[:, :1]]), kx.ShapeError,
         r"`X\[1\]` has shape \(5, 1\) and `X\[0\]` \(5, 2\)"),
        (lambda: kx.pad([BASE], [np.ones(4)]), kx.ShapeError,
         r"sets of \[5\] rows and `y` of \[4\]"),
        (lambda: kx.pad([BASE], [np.ones(5)] * 2), kx.ShapeError, r"and `y` of \[5, 5\]"),
        (lambda: kx.pad([BASE], size=4), kx.ShapeError, "`size` is 4, but the longest set has 5"),
        (lambda: kx.pad([BASE * 1j]), kx.DTypeError, r"`X\[0\]` has dtype complex128"),
        (lambda: kx.pad([BASE], [["a"] * 5]), kx.DTypeError, r"`y\[0\]` has dtype <U1"),
    ],
)  # fmt: skip
def test_sets_that_do_not_fit_together(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert "Fix:" in str(caught.value)
