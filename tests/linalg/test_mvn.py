"""The log density of a multivariate normal: values, derivatives, and what is said on failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import kernax as kx

EPS = np.finfo(float).eps
A = np.array([[2.0, 0.3, -0.4], [0.3, 1.5, 0.2], [-0.4, 0.2, 1.1]])
B = np.array([[0.5, 0.1, 0.0], [0.1, 0.3, 0.2], [0.0, 0.2, 0.4]])
Y = np.array([0.3, -1.2, 0.7])


def plain(y, mean, K):
    """The textbook formula, left to automatic differentiation."""
    L = jnp.linalg.cholesky(K)
    z = jax.scipy.linalg.solve_triangular(L, y - mean, lower=True)
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(L))) - 0.5 * len(y) * np.log(2 * np.pi)


@pytest.mark.parametrize("n", [1, 3])
def test_value_against_scipy(n):
    y, K, mean = Y[:n], A[:n, :n], np.array([0.5, -0.1, 0.2])[:n]
    expected = multivariate_normal(mean, K).logpdf(y)
    value = kx.mvn_log_density(y, mean, K)
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_array_equal(kx.mvn_log_density(y[:, None], mean, K), value)
    np.testing.assert_array_equal(kx.mvn_log_density(y.tolist(), mean.tolist(), K.tolist()), value)
    expected = multivariate_normal(np.full(n, 0.4), K).logpdf(y)
    np.testing.assert_allclose(kx.mvn_log_density(y, 0.4, K), expected, rtol=1e-13)


def test_no_points():
    value = kx.mvn_log_density(np.zeros(0), 0.0, np.zeros((0, 0)))
    assert value == 0.0
    assert not np.signbit(value)


def test_whole_numbers_are_numbers():
    expected = multivariate_normal(np.zeros(2), 2 * np.eye(2)).logpdf([1, 2])
    for array in (np.array, jnp.array):
        value = kx.mvn_log_density(array([1, 2]), array(0), array([[2, 0], [0, 2]]))
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_float32_stays_float32_and_has_no_determinant_to_underflow():
    K = np.float32(0.1) * np.eye(50, dtype=np.float32)
    zero = np.zeros(50, np.float32)
    value = kx.mvn_log_density(zero, zero[0], K)
    assert value.dtype == np.float32
    log_determinant = -2 * float(value) - 50 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_determinant, -115.12925, rtol=1e-6)


def test_jitter_where_singular_is_said():
    K = np.ones((3, 3))
    with pytest.warns(kx.NumericalWarning, match=r"singular.*: 6.66e-16 was added.*Fix: add noise"):
        value = kx.mvn_log_density(np.ones(3), 0.0, K)
    # Eigenvalues 3 + c, c, c; y along the first.
    c = 3 * EPS
    expected = -0.5 * (1.0 + np.log(3) + 2 * np.log(c) + 3 * np.log(2 * np.pi))
    np.testing.assert_allclose(value, expected, rtol=0.01)


def test_not_positive_definite():
    bad = np.array([[1.0, 2.0], [2.0, 3.0]])
    text = (
        r"the 2 x 2 covariance matrix \(float64\) is not positive semi-definite: its diagonal is "
        r"between 1 and 3, and adding up to 8.88e-14 to it did not help. Fix: add noise \(.*\), "
        r"or enable x64"
    )
    with pytest.raises(kx.NotPSDError, match=text):
        kx.mvn_log_density([0.0, 1.0], 0.0, bad)
    with pytest.raises(np.linalg.LinAlgError, match=r"\(float32\)"):
        kx.mvn_log_density(*(np.asarray(a, np.float32) for a in ([0.0, 1.0], 0.0, bad)))
    traced = jax.jit(jax.value_and_grad(lambda K: kx.mvn_log_density(jnp.ones(2), 0.0, K)))
    value, gradient = traced(jnp.asarray(bad))
    assert np.isnan(value)
    assert np.isnan(gradient).all()


def test_overflow_is_a_failure_and_not_minus_infinity():
    y, K = np.full(2, 1e20, np.float32), np.eye(2, dtype=np.float32)
    with pytest.raises(
        kx.InputError, match=r"beyond the range of float32: `y` is too far.*rescale"
    ):
        kx.mvn_log_density(y, np.float32(0), K)
    assert np.isnan(jax.jit(kx.mvn_log_density)(y, np.float32(0), K))


@pytest.mark.parametrize(
    ("y", "mean", "K", "text"),
    [
        (Y, 0.0, np.array([[1, 0.5, 0], [0.4, 1, 0], [0, 0, 1]]), "not symmetric.*up to 0.1. Fix"),
        (Y, 0.0, np.diag([1, np.nan, np.nan]), "`covariance` holds 2 NaN, .*row 1, column 1"),
        (np.array([0, 1, np.nan]), 0.0, A, "`y` holds 1 NaN, the first at row 2; expected numbers"),
        (Y, np.array([np.nan, 0, np.nan]), A, "`mean` holds 2 NaN, the first at row 0"),
        (Y, np.nan, A, "`mean` holds 1 NaN; expected numbers"),
        (np.array([np.inf, 1, 0]), 0.0, A, r"`y` holds 1 infinite value\(s\), the first at row 0"),
        (Y, 0.0, np.diag([1, 1, np.inf]), "`covariance` holds 1 infinite.* row 2, column 2"),
    ],
)
def test_unusable_values(y, mean, K, text):
    with pytest.raises(kx.InputError, match=text):
        kx.mvn_log_density(y, mean, K)


@pytest.mark.parametrize(
    ("y", "mean", "K"),
    [
        (Y, 0.0, A[:2]),
        (Y[:2], 0.0, A),
        (Y, np.zeros(2), A),
        (Y, 0.0, np.ones(3)),
        (np.ones((3, 2)), 0.0, A),
        (np.ones((1, 3)), 0.0, A),
    ],
)
def test_wrong_shapes(y, mean, K):
    with pytest.raises(kx.ShapeError, match=r"expected \(n,\), \(n,\) or \(\), and \(n, n\). Fix"):
        kx.mvn_log_density(y, mean, K)
    with pytest.raises(kx.ShapeError, match="`covariance`"):
        jax.jit(kx.mvn_log_density)(y, mean, K)


def through(density):
    """A density as a function of three numbers that move K, y and the mean."""

    def function(t):
        K = jnp.asarray(A) + t[0] ** 2 * jnp.asarray(B) + jnp.sin(t[1]) * jnp.eye(3)
        return density(jnp.asarray(Y) * jnp.cos(t[2]), t[1] * t[2], K)

    return function


T = np.array([0.4, 0.3, 0.8])


def test_second_and_third_derivatives_against_autodiff():
    direction = jnp.asarray([0.7, -0.4, 1.1])

    def orders(f):
        along = lambda s: f(T + s * direction)
        third = jax.jacfwd(jax.jacfwd(jax.grad(along)))
        return jax.jit(lambda: (f(T), jax.hessian(f)(T), third(0.0)))()

    ours, reference = orders(through(kx.mvn_log_density)), orders(through(plain))
    for value, expected in zip(ours, reference, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-12)


def test_gradient_against_differences_and_forward_mode():
    f = jax.jit(through(kx.mvn_log_density))
    gradient = jax.jit(jax.grad(f))(T)
    slope = jax.jit(lambda t, direction: jax.jvp(f, (t,), (direction,))[1])
    for i, direction in enumerate(np.eye(3)):
        h = 1e-5
        difference = (f(T + h * direction) - f(T - h * direction)) / (2 * h)
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-7)
        np.testing.assert_allclose(gradient[i], slope(T, direction), rtol=1e-12)


def test_gradient_with_respect_to_the_arguments():
    """d/dK = (a a' - K^-1) / 2 and d/dy = -a = -d/dmean, with a = K^-1 (y - mean)."""
    mean = np.array([0.5, -0.1, 0.2])
    dy, dmean, dK = jax.jit(jax.grad(kx.mvn_log_density, argnums=(0, 1, 2)))(Y, mean, A)
    a = np.linalg.solve(A, Y - mean)
    np.testing.assert_allclose(dy, -a, rtol=1e-12)
    np.testing.assert_allclose(dmean, a, rtol=1e-12)
    np.testing.assert_allclose(dK, (np.outer(a, a) - np.linalg.inv(A)) / 2, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(dK, dK.T)


def test_inside_vmap():
    K = np.stack([A, A + B, np.eye(3)])
    single = [kx.mvn_log_density(Y, 0.0, k) for k in K]
    both = jax.value_and_grad(lambda k: kx.mvn_log_density(Y, 0.0, k))
    values, gradients = jax.jit(jax.vmap(both))(K)
    np.testing.assert_allclose(values, single, rtol=1e-14)
    np.testing.assert_allclose(
        gradients[2], (np.outer(Y, Y) - np.eye(3)) / 2, rtol=1e-14, atol=1e-15
    )


def test_gradient_where_jitter_was_needed_is_that_of_the_shifted_matrix():
    K, c = np.ones((3, 3)), 3 * EPS
    gradient = jax.jit(jax.grad(kx.mvn_log_density, argnums=(0, 2)))
    for ours, shifted in zip(gradient(Y, 0.0, K), gradient(Y, 0.0, K + c * np.eye(3)), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, shifted)
