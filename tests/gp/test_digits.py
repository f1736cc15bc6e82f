"""Likelihoods and their gradients in fifty digits, from tiny length-scales to huge ones."""

import warnings

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import kernax as kx
from kernax.linalg._primitive import slopes

X = np.array([[0.0, 0.2], [0.5, -1.0], [0.5, -1.0], [2.0, 0.3], [-1.5, 0.9]])
Y = np.array([0.3, -1.2, -1.0, 0.8, 0.1])
NAMES = ("left_kernel.value", "right_kernel.length_scale")


def exact(variance, scale, noise):
    n = len(Y)
    squares = [[mp.fsum(mp.mpf(float(a - b)) ** 2 for a, b in zip(x, z, strict=True)) for z in X]
               for x in X]  # fmt: skip
    K = mp.matrix(n, n)
    for i in range(n):
        for j in range(n):
            K[i, j] = variance * mp.exp(-squares[i][j] / (2 * scale**2)) + noise * (i == j)
    y = mp.matrix([mp.mpf(float(v)) for v in Y])
    quadratic = (y.T * mp.lu_solve(K, y))[0]
    return -(quadratic + mp.log(mp.det(K)) + n * mp.log(2 * mp.pi)) / 2


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_likelihood_and_gradient(scale):
    values = 1.7, scale, 0.05
    gp = kx.GaussianProcess(1.7 * kx.SEKernel(scale), 0.05)
    value, slopes = jax.jit(jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(X, Y)))(gp)
    found = [slopes.hyperparameters[f"kernel.{name}"] for name in NAMES]
    with mp.workdps(50):
        values = tuple(map(mp.mpf, values))
        np.testing.assert_allclose(value, float(exact(*values)), rtol=1e-12)
        for i, slope in enumerate([*found, slopes.noise_variance]):
            moved = lambda v, i=i: exact(*values[:i], v, *values[i + 1 :])
            expected = float(mp.diff(moved, values[i], h=values[i] * mp.mpf(10) ** -15))
            # Condition number times rounding, where the terms cancel to almost nothing.
            size = 1e-12 * len(Y) / float(values[i])
            np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=size)


def test_forward_mode_is_reverse_mode():
    gp = kx.GaussianProcess(1.7 * kx.SEKernel(0.8), 0.05)
    likelihood = lambda gp: gp.log_marginal_likelihood(X, Y)
    slopes = jax.grad(likelihood)(gp)
    for path, value in gp.hyperparameters.items():
        along = lambda v, path=path: likelihood(gp.replace(**{path: v}))
        found = jax.jvp(along, (value,), (jnp.ones_like(value),))[1]
        np.testing.assert_allclose(found, slopes.hyperparameters[path], rtol=1e-11)


@pytest.mark.parametrize("seed", [0, 3])
def test_slopes_of_a_singular_matrix_in_32_bits(x64_off, seed):
    """The inverse is of the order of 1e4, and its rows nearly add up to 0: the derivative is as
    good as what the inverse itself allows, summed up in 64 bits."""
    x = np.random.default_rng(seed).uniform(size=(760, 1)).astype(np.float32)
    y = np.sin(6 * x[:, 0])
    scale = np.float32(0.3)
    value = lambda s: kx.GaussianProcess(kx.SEKernel(s), 0.0).log_marginal_likelihood(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kx.NumericalWarning)
        jitter = kx.GaussianProcess(kx.SEKernel(scale), 0.0).condition(x, y).jitter
        found = float(jax.grad(value)(scale))
    K = kx.SEKernel(scale).gram(jnp.asarray(x)) + jitter * jnp.eye(760)
    *_, W = slopes(K, jnp.asarray(y), jnp.zeros(3))
    squares = np.square(np.float64(x) - np.float64(x).T)
    dK = np.exp(-0.5 * squares / 0.3**2) * squares / 0.3**3
    np.testing.assert_allclose(found, np.sum(np.float64(W) * dK), rtol=0.015)
