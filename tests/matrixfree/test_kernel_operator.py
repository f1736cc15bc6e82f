"""Products without the matrix, against the matrix."""

from functools import cache

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, gram_reference

RNG = np.random.default_rng(2)
X, V = RNG.normal(size=(37, 2)), RNG.normal(size=(37, 3))
COMPOSITE = 2.0 * kx.ARDKernel(kx.SEKernel(), [0.5, 1.5]) * kx.PeriodicKernel(1.0, 2.0)
COMPOSITE = COMPOSITE + kx.ActiveDimsKernel(kx.Matern32Kernel(0.7), (1,)) + kx.WhiteNoiseKernel(0.1)
NOISY = kx.Matern52Kernel(1.1) * kx.SEKernel(2.0) + kx.WhiteNoiseKernel(0.1)
KERNELS = [kx.SEKernel(0.8), kx.Matern52Kernel(1.1), COMPOSITE, kx.BrownianKernel()]


def close(found, expected, tolerance=1e-12):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def all_close(found, expected):
    for one, value in zip(found, expected, strict=True):
        close(one, value)


@jax.jit
def products(operator, V):
    """All that is made of tiles, from one program."""
    one = operator @ V[:, 0]
    return operator @ V, one, operator.dense(), operator.bilinear(V, V[:, ::-1])


@jax.jit
def looks(operator, V, index):
    """What is made without tiles, from one program."""
    stored = operator.stored()
    return operator.diagonal(), operator.columns(index), stored.matrix, stored @ V


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_product_diagonal_and_columns(kernel):
    noise, index = RNG.uniform(0.1, 0.2, size=37), np.array([3, 36, 3])
    K = np.asarray(kernel.gram(X)) + np.diag(noise)
    for pairs in (50, 1 << 18):
        operator = kx.KernelOperator(kernel, X, noise, pairs=pairs)
        assert operator.shape == (37, 37)
        form = np.sum(V * (K @ V[:, ::-1]))
        all_close(products(operator, V), (K @ V, K @ V[:, 0], K, form))
    all_close(looks(operator, V, index), (np.diag(K), K[:, index], K, K @ V))


def slopes(form):
    return jax.jit(jax.grad(form, argnums=(0, 1)))(COMPOSITE, jnp.asarray(X))


@cache
def slopes_by_the_matrix():
    dense = lambda kernel, X: V * ((kernel.gram(X) + 0.1 * jnp.eye(37)) @ V[:, ::-1])
    return slopes(lambda kernel, X: jnp.sum(dense(kernel, X)))


@pytest.mark.parametrize("pairs", [50, 1 << 18])
def test_gradient_of_the_bilinear_form(pairs):
    def form(kernel, X):
        return kx.KernelOperator(kernel, X, 0.1, pairs=pairs).bilinear(V, V[:, ::-1])

    leaves = jax.tree.leaves
    for a, b in zip(leaves(slopes(form)), leaves(slopes_by_the_matrix()), strict=True):
        close(a, np.asarray(b), 1e-11)


def test_nothing_as_large_as_the_matrix_is_kept():
    points, vectors = jnp.zeros((6000, 3)), jnp.ones((6000, 4))
    form = lambda kernel: kx.KernelOperator(kernel, points, 0.1).bilinear(vectors, vectors)
    compiled = jax.jit(jax.value_and_grad(form)).lower(kx.SEKernel()).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 6000**2 * 8 / 10


@pytest.mark.parametrize("mask", [None, np.arange(37) % 5 != 0])
def test_padding(mask):
    padded = X.copy()
    padded[[4, 20]] = np.nan
    real = ~np.isnan(padded).any(axis=1) & (True if mask is None else mask)
    operator = kx.KernelOperator(NOISY, padded, 0.1, mask=mask)
    K, index = np.eye(37), np.array([4, 7])
    K[np.ix_(real, real)] = NOISY.gram(X[real]) + 0.1 * np.eye(real.sum())
    close(operator @ V, K @ V)
    all_close(looks(operator, V, index), (np.diag(K), K[:, index], K, K @ V))


def test_what_operators_make_of_a_kernel():
    applied = kx.apply(kx.SEKernel(0.9), kx.Gradient(), kx.Gradient())
    operator = kx.KernelOperator(applied, X, 0.1, pairs=60)
    K, W = np.asarray(applied.gram(X)) + 0.1 * np.eye(74), RNG.normal(size=(74, 2))
    index = np.array([5, 72])
    close(operator @ W, K @ W)
    all_close(looks(operator, W, index), (np.diag(K), K[:, index], K, K @ W))


def test_kernels_of_the_catalogue():
    for case in list(CASES.values())[::5]:
        found = kx.KernelOperator(case.kernel, X[:9], pairs=14).dense()
        close(found, gram_reference(case, X[:9]))


def test_no_points():
    operator = kx.KernelOperator(kx.SEKernel(), np.zeros((0, 2)), 0.1)
    assert (operator @ np.zeros((0, 3))).shape == (0, 3)


def test_lineax_solves_with_it():
    operator = kx.KernelOperator(kx.SEKernel(0.8), X, 0.5)
    solver = lineax.CG(rtol=1e-12, atol=1e-12)
    found = lineax.linear_solve(operator.as_lineax(), jnp.asarray(V[:, 0]), solver).value
    close(operator @ found, V[:, 0], 1e-10)


def test_refused():
    with pytest.raises(kx.ShapeError, match="multiplied with has shape"):
        kx.KernelOperator(kx.SEKernel(), X) @ np.zeros(5)
    with pytest.raises(kx.ShapeError, match="`noise_variance` has shape"):
        kx.KernelOperator(kx.SEKernel(), X, np.ones(5))
    with pytest.raises(kx.ParameterError, match="is a batch of kernels"):
        kx.KernelOperator(kx.BatchKernel(kx.SEKernel(), 2), X)
    with pytest.raises(kx.ParameterError, match="two different operators"):
        kx.KernelOperator(kx.apply(kx.SEKernel(), kx.Gradient()), X)
    many = np.zeros((300_000, 1))
    with pytest.raises(
        kx.ResourceError, match=r"the matrix with what it is made of needs 3096\.0 GB"
    ):
        kx.KernelOperator(kx.SEKernel(), many).dense()
    with pytest.raises(kx.ResourceError, match=r"300000 x 300000 covariances needs 720\.0 GB"):
        kx.SEKernel().gram(many)
