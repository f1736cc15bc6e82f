"""Mean functions: values, gradients, and what is said of a function that is not one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx
from kernax.gp._means import evaluate_mean
from tests.gp.test_process import SE, X, Y, log_density, se

K = se(X, X) + 0.1 * np.eye(6)


def likelihood(mean, points=X):
    return kx.GaussianProcess(SE, 0.1, mean=mean).log_marginal_likelihood(points, Y)


class Wave(kx.AbstractMean):
    """A user's mean, with a hyperparameter of its own."""

    height: Array = kx.positive(1.0)

    def __call__(self, X):
        return self.height * jnp.sin(X[:, 0])


class PointByPoint(kx.AbstractMean):
    """A user's mean that does not map (n, d) to (n,)."""

    def __call__(self, X):
        return X


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (kx.ZeroMean(), 0.0 * X[:, 0]),
        (kx.ConstantMean(0.7), 0.7 + 0.0 * X[:, 0]),
        (2, 2.0 + 0.0 * X[:, 0]),
        (kx.LinearMean([0.5, -0.2], 0.1), X @ [0.5, -0.2] + 0.1),
        (kx.LinearMean(0.5), 0.5 * X.sum(axis=1)),
        (Wave(0.4), 0.4 * np.sin(X[:, 0])),
        (lambda X: jnp.cos(X[:, 1]), np.cos(X[:, 1])),
        (lambda X: X[:, :1] ** 2, X[:, 0] ** 2),
    ],
)
def test_values(mean, expected):
    gp = kx.GaussianProcess(SE, 0.1, mean=mean)
    values = evaluate_mean(gp.mean, jnp.asarray(X))
    np.testing.assert_allclose(values, expected, rtol=1e-14, atol=1e-15)


def test_likelihood_of_what_is_left():
    column = lambda X: X[:, :1] ** 2
    np.testing.assert_allclose(likelihood(column), log_density(Y, K, X[:, 0] ** 2), rtol=1e-11)
    np.testing.assert_allclose(likelihood(2), log_density(Y, K, 2.0), rtol=1e-11)


def test_a_number_becomes_a_constant():
    gp = kx.GaussianProcess(SE, 0.1, mean=2)
    assert isinstance(gp.mean, kx.ConstantMean)
    assert gp.hyperparameters["mean.value"] == 2.0
    assert gp.mean.flat
    assert kx.ZeroMean().flat
    assert not kx.LinearMean(0.5).flat


def test_hyperparameters_have_paths():
    gp = kx.GaussianProcess(SE, 0.1, mean=Wave(0.4))
    assert gp.hyperparameters["mean.height"] == 0.4
    assert gp.replace(height=0.8).mean.height == 0.8
    with pytest.raises(kx.ParameterError, match=r"Wave: `height` is -1.0, expected .* > 0"):
        Wave(-1.0)


def test_gradient_of_a_linear_mean_which_meets_no_padding():
    """d/dbias = 1' K^-1 r and d/dweights = X' K^-1 r, with r = y - m(X)."""
    padded, y = np.vstack([X, [[np.nan, 0.0]]]), np.append(Y, 1e6)
    gp = kx.GaussianProcess(SE, 0.1, mean=kx.LinearMean([0.5, -0.2], 0.1))
    value, gradient = jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(padded, y))(gp)
    line = X @ [0.5, -0.2] + 0.1
    np.testing.assert_allclose(value, log_density(Y, K, line), rtol=1e-11)
    solution = np.linalg.solve(K, Y - line)
    np.testing.assert_allclose(gradient.mean.weights, X.T @ solution, rtol=1e-11)
    np.testing.assert_allclose(gradient.mean.bias, solution.sum(), rtol=1e-11)


SHOULD = r"expected a function from points \(n, d\) to values \(n,\). Fix: write it with jax.numpy"


@pytest.mark.parametrize(
    ("mean", "text"),
    [
        (lambda x: x[0], rf"`mean` returned shape \(2,\) for 9 points; {SHOULD}"),
        (jnp.sum, rf"`mean` returned shape \(\) for 9 points; {SHOULD}"),
        (lambda X: X, rf"`mean` returned shape \(9, 2\) for 9 points; {SHOULD}"),
        (lambda X: X @ jnp.ones(3), rf"`mean` failed: .*contracting dim.*; {SHOULD}"),
        (lambda X: np.sin(X[:, 0]), rf"`mean` failed: The numpy.ndarray conversion.*; {SHOULD}"),
        (PointByPoint(), rf"`mean` returned shape \(6, 2\) for 6 points; {SHOULD}"),
        (kx.LinearMean([1.0, 2, 3]), r"LinearMean: `weights` has shape \(3,\).* dimension 2"),
        (kx.ConstantMean([1.0, 2.0]), r"ConstantMean: `value` has shape \(2,\), expected \(\)"),
    ],
)
def test_wrong_means(mean, text):
    with pytest.raises(kx.ShapeError, match=text):
        likelihood(mean)


def test_a_function_of_one_point_is_found_out_where_n_equals_d():
    square = np.eye(6)
    with pytest.raises(kx.ShapeError, match=r"`mean` returned shape \(6,\) for 13 points"):
        likelihood(lambda x: x[0], square)


def test_a_mean_that_is_nan_is_not_called_a_bad_covariance():
    undefined = X[:, 0] < 0
    text = f"`mean` is NaN at {undefined.sum()} points, the first at row {np.argmax(undefined)};"
    with pytest.raises(kx.InputError, match=text):
        likelihood(lambda X: jnp.log(X[:, 0]))


def test_what_is_not_a_mean():
    with pytest.raises(kx.DTypeError, match="ConstantMean: `value` is 'zero', expected a number"):
        kx.GaussianProcess(SE, 0.1, mean="zero")
