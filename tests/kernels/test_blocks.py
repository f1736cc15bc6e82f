"""Large matrices by blocks and tiles are the plain ones, and so are their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.checks._quick import quick_jit
from kernax.kernels import _blocks, _distance
from kernax.kernels._gram import covariance
from tests.table import CASES

EPS = np.finfo(float).eps


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks and tiles so small that a matrix of a few rows has several."""
    monkeypatch.setattr(_blocks, "BLOCK_PAIRS", 128)
    monkeypatch.setattr(_blocks, "TILE", 8)
    monkeypatch.setattr(_distance, "FEWEST_PAIRS", 16)


@pytest.fixture
def sets():
    """More rows than a multiple of a tile, two of them alike, and other points."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(37, 2)), rng.normal(size=(29, 2))
    X[30], Y[3] = X[2], X[2]
    return jnp.asarray(X), jnp.asarray(Y)


def plain_symmetric(kernel, X):
    noisy = kx.kernels._gram.with_noise(kernel)
    diagonal = jax.vmap(lambda x: noisy.pairwise(x, x))(X)
    return jnp.where(jnp.eye(len(X), dtype=bool), diagonal[:, None], plain(kernel, X, X))


def plain(kernel, X, Y):
    return jax.vmap(lambda x: jax.vmap(lambda y: kernel.pairwise(x, y))(Y))(X)


def weighted(function, weights):
    return lambda *arguments: jnp.sum(weights * function(*arguments))


NAMES = ["se per dimension", "matern12", "power of a sum with noise", "a user's wrapper"]
NOISY = pytest.param(NAMES[2], marks=pytest.mark.optimised)  # one as users run it


@pytest.mark.optimised
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_symmetric_and_the_plain_matrix(name, sets, small_blocks):
    k, (X, Y) = CASES[name].kernel, sets
    K, C = jax.jit(lambda k, X, Y: (covariance(k, X), _blocks.rectangle(k, X, Y)))(k, X, Y)
    np.testing.assert_array_equal(K, K.T)
    same, cross = quick_jit(lambda k, X, Y: (plain_symmetric(k, X), plain(k, X, Y)))(k, X, Y)
    np.testing.assert_allclose(K, same, rtol=1e-11, atol=1e-12 * max(1.0, np.abs(same).max()))
    np.testing.assert_allclose(C, cross, rtol=1e-11, atol=1e-12 * max(1.0, np.abs(cross).max()))


@pytest.mark.parametrize("name", [*NAMES[:2], NOISY, NAMES[3]])
def test_blocks_are_the_plain_matrix_in_all_derivatives(name, sets, small_blocks):
    k, (X, Y) = CASES[name].kernel, sets
    rng = np.random.default_rng(1)
    cross, same = jnp.asarray(rng.normal(size=(37, 29))), jnp.asarray(rng.normal(size=(37, 37)))

    def everything(rectangle, symmetric, k, X, Y):
        f, g = weighted(rectangle, cross), weighted(symmetric, same)
        ones = jax.tree.map(jnp.ones_like, k)
        along = lambda function, *args: jax.jvp(function, args, jax.tree.map(jnp.sin, args))[1]
        return (
            rectangle(k, X, Y),
            symmetric(k, X),
            jax.grad(f, argnums=(0, 1, 2))(k, X, Y),
            jax.grad(g, argnums=(0, 1))(k, X),
            along(rectangle, k, X, Y),
            along(symmetric, k, X),
            jax.jvp(jax.grad(lambda k: f(k, X, Y)), (k,), (ones,))[1],
            jax.jvp(jax.grad(g, argnums=1), (k, X), (ones, jnp.cos(X)))[1],
        )

    # Arguments, since of constants the compiler would work out whatever it can by itself.
    fast = jax.jit(lambda *args: everything(_blocks.rectangle, covariance, *args))(k, X, Y)
    slow = quick_jit(lambda *args: everything(plain, plain_symmetric, *args))(k, X, Y)
    np.testing.assert_array_equal(fast[1], fast[1].T)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(b))))
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * scale)


@pytest.mark.optimised
def test_blocks_of_a_batch_of_large_matrices(sets, small_blocks):
    X = sets[0]
    k = kx.SEKernel([0.6, 1.7]) * 2.0 + kx.Matern32Kernel(0.8)
    f = weighted(
        lambda k, X: covariance(k, X), jnp.asarray(np.random.default_rng(1).normal(size=(37, 37)))
    )
    both = jax.jit(jax.vmap(jax.value_and_grad(f), (None, 0)))(k, jnp.stack([X, 2 * X]))
    one = quick_jit(jax.value_and_grad(f))(k, 2 * X)
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-11)


@pytest.mark.optimised
def test_a_kernel_with_integers_in_it_has_blocks_too(small_blocks, sets):
    class Counted(kx.AbstractKernel):
        scale: jax.Array = kx.positive(0.7)
        counts: tuple = (1, 2)

        def pairwise(self, x, y):
            return jnp.exp(-self.counts[1] * jnp.sum(jnp.abs(x - y)) / self.scale)

    X, Y = sets
    f = lambda k, form: jnp.sum(form(k, X, Y))
    fast, slow = (
        compiled(jax.grad(lambda k, form=form: f(k, form)))(Counted())
        for compiled, form in ((jax.jit, _blocks.rectangle), (quick_jit, plain))
    )
    np.testing.assert_allclose(fast.scale, slow.scale, rtol=1e-12)


@pytest.mark.optimised
def test_nothing_as_large_as_the_matrix_is_kept_for_the_pull_back():
    X, W = jnp.zeros((1536, 3)), jnp.zeros((1536, 1536))
    k = kx.SEKernel(1.0) * kx.Matern32Kernel(2.0) + kx.RationalQuadraticKernel()
    for total in (lambda k: jnp.sum(W * k.gram(X)), lambda k: jnp.sum(W * k.gram(X, X))):
        memory = jax.jit(jax.grad(total)).lower(k).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 0.9 * W.nbytes


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [(np.float64, 1e-9, 1e-6), (np.float64, 1e-3, 1e-6), (np.float32, 1e-2, 2e-3)],
)
def test_hyperparameter_gradients_far_from_the_middle(dtype, scale, tolerance, small_blocks):
    # Squares of the distances to the middle would cancel, digits gone, for all but near pairs.
    rng = np.random.default_rng(0)
    X = np.repeat(rng.uniform(-1, 1, size=(16, 1)), 2, axis=0).astype(dtype)
    X[1::2] += dtype(0.7 * scale)
    X = jnp.asarray(X)
    total = lambda scale: jnp.sum(_blocks.rectangle(kx.SEKernel(scale), X, X))
    found = jax.jit(jax.grad(total))(dtype(scale))
    s = (np.asarray(X - X.T, float) / float(dtype(scale))) ** 2
    np.testing.assert_allclose(
        found, np.sum(s * np.exp(-s / 2)) / float(dtype(scale)), rtol=tolerance
    )


@pytest.mark.optimised
@pytest.mark.parametrize("weight", [0.7, [0.6, 1.7]])
def test_distances_in_memory_are_the_plain_ones(weight):
    rng = np.random.default_rng(0)
    arguments = [
        jnp.asarray(a) for a in (rng.normal(size=(301, 2)), rng.normal(size=(150, 2)), weight)
    ]
    out = jnp.asarray(rng.normal(size=(301, 150)))

    def both(function):
        total = lambda *a: jnp.sum(out * function(*a))
        return function(*arguments), jax.grad(total, argnums=(0, 1, 2))(*arguments)

    fast, slow = (
        jax.jit(lambda f=f: both(f))() for f in (_distance._all_pairs, _distance._differences)
    )
    np.testing.assert_allclose(fast[0], slow[0], rtol=4 * EPS)
    for a, b in zip(fast[1], slow[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
