"""Products without the matrix, against the matrix."""

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES

RNG = np.random.default_rng(2)
X, V = RNG.normal(size=(37, 2)), RNG.normal(size=(37, 3))
COMPOSITE = 2.0 * kx.ARDKernel(kx.SEKernel(), [0.5, 1.5]) * kx.PeriodicKernel(1.0, 2.0)
COMPOSITE = COMPOSITE + kx.ActiveDimsKernel(kx.Matern32Kernel(0.7), (1,)) + kx.WhiteNoiseKernel(0.1)
KERNELS = [kx.SEKernel(0.8), kx.Matern52Kernel(1.1), COMPOSITE, kx.BrownianKernel()]


def close(found, expected, tolerance=1e-12):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("pairs", [50, 1 << 18])
def test_product_diagonal_and_columns(kernel, pairs):
    noise = RNG.uniform(0.1, 0.2, size=37)
    operator = kx.KernelOperator(kernel, X, noise, pairs=pairs)
    K = np.asarray(kernel.gram(X)) + np.diag(noise)
    assert operator.shape == (37, 37)
    close(operator @ V, K @ V)
    close(operator @ V[:, 0], K @ V[:, 0])
    close(operator.dense(), K)
    close(operator.stored().matrix, K)
    close(operator.stored() @ V, K @ V)
    close(operator.diagonal(), np.diag(K))
    index = np.array([3, 36, 3])
    close(operator.columns(jnp.asarray(index)), K[:, index])
    close(operator.bilinear(V, V[:, ::-1]), np.sum(V * (K @ V[:, ::-1])))


@pytest.mark.parametrize("pairs", [50, 1 << 18])
def test_gradient_of_the_bilinear_form(pairs):
    def form(kernel, X):
        return kx.KernelOperator(kernel, X, 0.1, pairs=pairs).bilinear(V, V[:, ::-1])

    def dense(kernel, X):
        return jnp.sum(V * ((kernel.gram(X) + 0.1 * jnp.eye(37)) @ V[:, ::-1]))

    found, expected = (
        jax.jit(jax.grad(f, argnums=(0, 1)))(COMPOSITE, jnp.asarray(X)) for f in (form, dense)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
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
    operator = kx.KernelOperator(COMPOSITE, padded, 0.1, mask=mask)
    K = np.eye(37)
    K[np.ix_(real, real)] = COMPOSITE.gram(X[real]) + 0.1 * np.eye(real.sum())
    close(operator @ V, K @ V)
    close(operator.diagonal(), np.diag(K))
    close(operator.columns(jnp.array([4, 7])), K[:, [4, 7]])


def test_what_operators_make_of_a_kernel():
    applied = kx.apply(kx.SEKernel(0.9), kx.Gradient(), kx.Gradient())
    operator = kx.KernelOperator(applied, X, 0.1, pairs=60)
    K, W = np.asarray(applied.gram(X)) + 0.1 * np.eye(74), RNG.normal(size=(74, 2))
    close(operator @ W, K @ W)
    close(operator.diagonal(), np.diag(K))
    close(operator.columns(jnp.array([5, 72])), K[:, [5, 72]])


def test_kernels_of_the_catalogue():
    for case in list(CASES.values())[::5]:
        K = np.asarray(case.kernel.gram(X[:9]))
        close(kx.KernelOperator(case.kernel, X[:9], pairs=14).dense(), K)


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
        kx.ResourceError, match=r"the matrix with what it is made of needs 2664\.0 GB"
    ):
        kx.KernelOperator(kx.SEKernel(), many).dense()
    with pytest.raises(kx.ResourceError, match=r"300000 x 300000 covariances needs 720\.0 GB"):
        kx.SEKernel().gram(many)
