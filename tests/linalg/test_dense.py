"""The Cholesky factorisation with its rule on jitter, and what is solved with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernax.linalg import Status, cholesky, log_density, status_of, whiten
from kernax.linalg._dense import jitter_ladder
from tests.linalg.matrices import ratio, with_condition

EPS = np.finfo(float).eps
EPS32 = np.finfo(np.float32).eps


def factor(A):
    """L and c of a NumPy matrix, as the callers in the package ask for them."""
    scale = np.mean(np.diag(A)) if len(A) else np.ones((), A.dtype)
    L, c = jax.jit(cholesky)(A, np.asarray(len(A), A.dtype), scale)
    return np.asarray(L), float(c)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 10, 50])
def test_factor_multiplies_back_at_every_size(n):
    A = with_condition(n, 2.0)
    L, c = factor(A)
    assert L.shape == (n, n)
    assert c == 0.0
    np.testing.assert_array_equal(L, np.tril(L))
    if n:
        assert ratio(L, A) <= 30


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_factor_multiplies_back_up_to_singular(dtype):
    eps = np.finfo(dtype).eps
    small = 0.25 * np.finfo(dtype).tiny / eps  # as LAPACK's own tests have it
    ladder = [with_condition(10, cond, dtype) for cond in (2.0, np.sqrt(0.1 / eps), 0.1 / eps)]
    scaled = [ladder[0] * dtype(scale) for scale in (small, 1 / small)]
    for A in [np.diag(np.arange(1, 11).astype(dtype)), *ladder, *scaled]:
        L, _ = factor(A)
        assert L.dtype == dtype
        assert ratio(L, A) <= 30


def test_a_positive_definite_matrix_is_not_touched():
    A = with_condition(10, 1e6)
    L, c = factor(A)
    assert c == 0.0
    plain = jax.jit(lambda A: jax.lax.linalg.cholesky(A, symmetrize_input=False))(jnp.asarray(A))
    np.testing.assert_array_equal(L, plain)
    np.testing.assert_allclose(L, np.linalg.cholesky(A), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("zeroed", [0, 4, 9])
def test_a_zero_row_needs_the_first_jitter(zeroed):
    A = with_condition(10, 2.0)
    A[zeroed], A[:, zeroed] = 0.0, 0.0
    L, c = factor(A)
    np.testing.assert_allclose(c, 10 * EPS * np.diag(A).mean(), rtol=1e-12)
    assert ratio(L, A) <= 30
    assert L[zeroed, zeroed] == np.sqrt(c)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_jitter_climbs_a_ladder_of_three(dtype):
    """The least of 1, 10 and 100 times n eps mean(diag) that makes the last pivot positive."""
    n, scale = 4, 2.0
    unit = n * np.finfo(dtype).eps * scale
    climb = jax.jit(cholesky)
    for negative, step in [(0.0, 1), (0.5, 1), (1.5, 10), (9.5, 10), (11.0, 100), (99.0, 100)]:
        A = np.diag([scale, scale, scale, -negative * unit]).astype(dtype)
        L, c = climb(jnp.asarray(A), jnp.asarray(n, dtype), jnp.asarray(scale, dtype))
        np.testing.assert_allclose(c, step * unit, rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(L, np.sqrt(A + np.asarray(c) * np.eye(n, dtype=dtype)))
    A = np.diag([scale, scale, scale, -101 * unit]).astype(dtype)
    L, c = climb(jnp.asarray(A), jnp.asarray(n, dtype), jnp.asarray(scale, dtype))
    assert np.isnan(np.asarray(L)[-1, -1])
    np.testing.assert_allclose(c, 100 * unit, rtol=4 * np.finfo(dtype).eps)


def test_jitter_is_capped():
    unit = 50 * EPS
    np.testing.assert_allclose(jitter_ladder(50, 1.0, np.float64), [unit, 10 * unit, 100 * unit])
    unit = 30 * EPS32
    root = np.sqrt(EPS32)
    assert 100 * unit > root
    np.testing.assert_allclose(
        jitter_ladder(30, jnp.float32(3.0), np.float32), [3 * unit, 30 * unit, 3 * root], rtol=1e-6
    )
    unit = 1000 * EPS32
    assert 10 * unit > root
    np.testing.assert_allclose(
        jitter_ladder(1000, jnp.float32(1.0), np.float32), [unit, 10 * unit, 10 * unit], rtol=1e-6
    )


def test_the_result_does_not_depend_on_the_scale():
    singular = np.ones((3, 3)) + np.diag([0.0, 0.0, 1.0])
    for A in (with_condition(3, 100.0), singular):
        L, c = factor(A)
        scaled, c_scaled = factor(4.0**10 * A)
        np.testing.assert_array_equal(scaled, 2.0**10 * L)
        assert c_scaled == 4.0**10 * c
    L, _ = factor(with_condition(3, 100.0))
    scaled, c = factor(1e6 * with_condition(3, 100.0))
    assert c == 0.0
    np.testing.assert_allclose(scaled, 1e3 * L, rtol=4 * EPS, atol=4 * EPS * 1e3)
    assert factor(singular)[1] == pytest.approx(3 * EPS * 4 / 3, rel=1e-12)


def test_float32_points_close_together():
    """30 points on [0, 1] with unit length-scale: min eigenvalue -2e-7, so 1e-8 is no help."""
    x = np.linspace(0, 1, 30, dtype=np.float32)
    K = np.exp(-0.5 * (x[:, None] - x) ** 2)
    assert K.dtype == np.float32
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(K + np.float32(1e-8) * np.eye(30, dtype=np.float32))
    L, c = factor(K)
    assert 0 < c <= 10 * 30 * EPS32
    assert ratio(L, K) <= 30


def test_each_item_of_a_batch_gets_its_own_jitter():
    positive = with_condition(3, 100.0)
    singular, indefinite = np.ones((3, 3)), np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
    A = np.stack([positive, singular, indefinite])
    scale = np.mean(np.diagonal(A, axis1=1, axis2=2), axis=1)

    @jax.jit
    @jax.vmap
    def each(A, n, scale):
        L, c = cholesky(A, n, scale)
        return L, c, status_of(L[-1, -1], c, n)

    L, c, status = each(A, np.full(3, 3.0), scale)
    np.testing.assert_array_equal(L[0], factor(positive)[0])
    np.testing.assert_array_equal(L[1], factor(singular)[0])
    assert np.isnan(L[2][-1, -1])
    np.testing.assert_allclose(c, [0.0, 3 * EPS, 300 * EPS], rtol=1e-12)
    assert status.tolist() == [Status.OK, Status.JITTERED, Status.NOT_PSD]
    assert status_of(jnp.array(0.0), jnp.array(0.0), jnp.array(0.0)) == Status.EMPTY


def test_solving_with_a_factor():
    A = with_condition(10, 1e3)
    rng = np.random.default_rng(1)
    L, B = jnp.asarray(np.linalg.cholesky(A)), rng.normal(size=(10, 3))
    for right in (B, B[:, 0]):
        for transpose, M in ((False, np.asarray(L)), (True, np.asarray(L).T)):
            x = np.asarray(whiten(L, jnp.asarray(right), transpose=transpose))
            assert x.shape == right.shape
            np.testing.assert_allclose(x, np.linalg.solve(M, right), rtol=1e-11, atol=1e-12)
            size = np.linalg.norm(M) * np.linalg.norm(x)
            assert np.linalg.norm(right - M @ x) <= 30 * 10 * EPS * size


def test_derivative_of_the_factor():
    A, rng = with_condition(4, 20.0), np.random.default_rng(2)
    dA = rng.normal(size=(4, 4))
    dA = dA + dA.T
    plain = lambda A: jnp.linalg.cholesky(A, symmetrize_input=False)

    @jax.jit
    def derivatives(A, tangent):
        n, scale = jnp.asarray(4.0), jnp.asarray(1.0)
        ours = jax.jvp(lambda A: cholesky(A, n, scale), (A,), (tangent,))[1]
        return *ours, jax.jvp(plain, (A,), (tangent,))[1]

    for tangent in (dA, np.diag([1.0, 0, 0, 0])):
        dL, dc, expected = derivatives(A, tangent)
        np.testing.assert_allclose(dL, expected, rtol=1e-12, atol=1e-13)
        h = 1e-6
        difference = (np.linalg.cholesky(A + h * tangent) - np.linalg.cholesky(A - h * tangent)) / h
        np.testing.assert_allclose(dL, difference / 2, rtol=1e-6, atol=1e-8)
        assert dc == 0.0


def test_jitter_is_a_constant_to_derivatives():
    """Where c was added, the gradient is the one at K + c I, and no part of it is due to c."""
    K, y, one = np.ones((3, 3)), np.array([1.0, 0.5, -0.2]), np.ones(())

    @jax.jit
    def gradient(K, y, scale):
        value = lambda *at: log_density(*at[:2], jnp.asarray(3.0), at[2])
        return jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True)(K, y, scale)

    (at_singular, c), (dK, dy, dscale) = gradient(K, y, one)
    assert c == 3 * EPS
    shifted = K + np.asarray(c) * np.eye(3)
    (at_shifted, none), (dK_shifted, dy_shifted, _) = gradient(shifted, y, one)
    assert none == 0.0
    assert at_singular == at_shifted
    np.testing.assert_array_equal(dK, dK_shifted)
    np.testing.assert_array_equal(dy, dy_shifted)
    assert dscale == 0.0
    assert np.isfinite(dK).all()
