"""The contract that every kernel of the table meets: one formula, and everything from it."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, NAMES, POSITIVE, gram_reference

EPS = np.finfo(float).eps
every = pytest.mark.parametrize("name", NAMES)


@every
def test_matrices_are_the_formula(name, points):
    case = CASES[name]
    k, other = case.kernel, points[:3] + 0.25
    scale = np.abs(gram_reference(case, points)).max()
    tol = dict(rtol=1e-12, atol=40 * EPS * scale)
    np.testing.assert_allclose(k.gram(points), gram_reference(case, points), **tol)
    np.testing.assert_allclose(k(points), gram_reference(case, points), **tol)
    np.testing.assert_allclose(k.gram(points, points), gram_reference(case, points, points), **tol)
    cross = gram_reference(case, points, other)
    np.testing.assert_allclose(k(points, other), cross, **tol)
    np.testing.assert_allclose(k.gram(points, other), cross, **tol)
    np.testing.assert_allclose(k(points, other[0]), cross[:, 0], **tol)
    np.testing.assert_allclose(k(points[1], other), cross[1], **tol)
    np.testing.assert_allclose(k(points[1], other[0]), cross[1, 0], **tol)
    np.testing.assert_allclose(k.pairwise(*jnp.asarray([points[1], other[0]])), cross[1, 0], **tol)
    np.testing.assert_allclose(k.diagonal(points), np.diag(gram_reference(case, points)), **tol)
    np.testing.assert_allclose(k(points[1]), gram_reference(case, points[1:2])[0, 0], **tol)
    batch = k(np.stack([points, points + 1]), np.stack([other, other]))
    np.testing.assert_allclose(batch[0], cross, **tol)
    np.testing.assert_allclose(batch[1], gram_reference(case, points + 1, other), **tol)


@every
def test_exactly_symmetric_with_the_exact_diagonal(name):
    k = CASES[name].kernel
    X = np.random.default_rng(1).normal(size=(37, 2))
    K = np.asarray(k.gram(X))
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(np.diag(K), k.diagonal(X), rtol=2 * EPS)


@pytest.mark.parametrize("name", POSITIVE)
def test_positive_semidefinite(name):
    X = np.random.default_rng(2).normal(size=(37, 2)) * 1.5
    K = np.asarray(CASES[name].kernel.gram(X))
    assert CASES[name].kernel.sign() == 1
    assert np.linalg.eigvalsh(K)[0] >= -len(X) * EPS * np.trace(K)


@every
def test_the_same_inside_jit_vmap_and_grad(name, points):
    k = CASES[name].kernel
    eager = k.gram(points)
    X = jnp.asarray(points)
    np.testing.assert_allclose(jax.jit(lambda k, X: k.gram(X))(k, X), eager, rtol=1e-13, atol=1e-14)
    rows = jax.vmap(lambda x: k(x, X))(X)
    np.testing.assert_allclose(rows, k(X, X), rtol=1e-13, atol=1e-14)
    # Built from its hyperparameters inside jit and grad.
    values = k.hyperparameters

    @jax.jit
    def weighted(values):
        return jnp.sum(jnp.sin(jnp.arange(36.0)).reshape(6, 6) * k.replace(**values).gram(X))

    gradient = jax.grad(weighted)(values)
    for path, value in values.items():
        direction = np.ones(value.shape)
        step = 1e-5 * float(np.max(np.abs(value)))
        difference = (
            weighted(values | {path: value + step * direction})
            - weighted(values | {path: value - step * direction})
        ) / (2 * step)
        slope = float(np.sum(gradient[path]))
        assert np.isfinite(slope)
        np.testing.assert_allclose(slope, difference, rtol=2e-5, atol=1e-7)


@every
def test_padded_equals_unpadded(name, points):
    k = CASES[name].kernel
    padded = np.vstack([points[:2], [[np.nan, 0.3]], points[2:], [[np.nan, np.nan]]])
    real = np.array([0, 1, 3, 4, 5, 6])
    K = np.asarray(k.gram(padded))
    np.testing.assert_array_equal(K[np.ix_(real, real)], k.gram(points))
    assert np.isnan(K[2]).all() and np.isnan(K[:, 7]).all()
    other = np.asarray(k(padded, points[:3]))
    np.testing.assert_array_equal(other[real], k(points, points[:3]))
    assert np.isnan(other[2]).all()
    assert np.isnan(np.asarray(k.diagonal(padded))[[2, 7]]).all()

    # With a mask, whatever fills the rows: those of the identity, and zeros in cross matrices.
    filled = np.where(np.isnan(padded), 1e30, padded)
    mask = np.isin(np.arange(8), real)
    expected = np.eye(8)
    expected[np.ix_(real, real)] = k.gram(points)
    np.testing.assert_array_equal(k.gram(filled, mask=mask), expected)
    np.testing.assert_array_equal(k.gram(padded, mask=np.ones(8, bool)), expected)
    cross = np.asarray(k.gram(filled, points, mask=mask))
    np.testing.assert_array_equal(cross[real], k.gram(points, points))
    assert (cross[~mask] == 0).all()

    # Gradients too.
    plain = jax.grad(lambda k: jnp.sum(k.gram(jnp.asarray(points))))(k)
    nan = jax.grad(lambda k: jnp.nansum(k.gram(jnp.asarray(padded))))(k)
    masked = jax.grad(lambda k: jnp.sum(k.gram(jnp.asarray(filled), mask=jnp.asarray(mask))))(k)
    for path, value in plain.hyperparameters.items():
        for other in (nan, masked):
            np.testing.assert_allclose(other.hyperparameters[path], value, rtol=1e-12, atol=1e-13)


@every
def test_frozen_picklable_comparable(name):
    k = CASES[name].kernel
    for twin in (pickle.loads(pickle.dumps(k)), copy.deepcopy(k), copy.copy(k), k.replace()):
        assert twin.equals(k)
        assert twin.structure is k.structure
        assert hash(twin.structure) == hash(k.structure)
    with pytest.raises(TypeError, match="pass it to a jitted function as an argument"):
        hash(k)
    with pytest.raises(AttributeError):
        k.length_scale = 1.0
    if k.hyperparameters:
        path, value = next(iter(k.hyperparameters.items()))
        assert not k.replace(**{path: value * 1.5 + 0.1}).equals(k)
    assert not k.equals(k + k)


@every
def test_repr_reads_as_a_formula(name):
    text = repr(CASES[name].kernel)
    assert "Array" not in text and "Kernel" not in text
    assert repr(jax.eval_shape(lambda k: k, CASES[name].kernel)) is not None


@every
def test_float32_agrees_with_float64(name, points):
    k = CASES[name].kernel
    X32 = points.astype(np.float32)
    k32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), k)
    K = k32.gram(X32)
    assert K.dtype == jnp.float32
    exact = gram_reference(CASES[name], X32.astype(float))
    np.testing.assert_allclose(K, exact, rtol=2e-5, atol=2e-5 * np.abs(exact).max())


def test_nothing_is_compiled_again_for_new_values(points):
    X = jnp.asarray(points)
    kernel = 2.0 * kx.SEKernel(1.0) + kx.PeriodicKernel(1.3, 1.0) * kx.Matern32Kernel([1.0, 2.0])
    from kernax.kernels import _gram

    def evaluate(k):
        return k(X[0], X[1]), k(X), k.gram(X), k.gram(X, X), k.diagonal(X)

    evaluate(kernel)
    sizes = [f._cache_size() for f in (_gram._call, _gram._gram, _gram._diagonal)]
    for i in range(100):
        value = [float(i + 1), np.float32(i + 1), i + 1][i % 3]
        path = "left_kernel.right_kernel.length_scale"
        evaluate(kernel.replace(**{path: float(value)}))
    assert [f._cache_size() for f in (_gram._call, _gram._gram, _gram._diagonal)] == sizes


@pytest.mark.parametrize("value", [1.0, 1, np.float64(1), np.int64(1), np.array(1.0)])
def test_any_number_gives_one_trace(value):
    reference = kx.SEKernel(2.0)
    kernel = kx.SEKernel(value)
    assert kernel.length_scale.dtype == jnp.float64
    assert not kernel.length_scale.weak_type
    assert kernel.structure is reference.structure


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 10, 50])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_every_size_keeps_its_rank(n, d):
    kernel = kx.SEKernel(1.0) * kx.LinearKernel() + kx.WhiteNoiseKernel(0.1)
    X, Y = np.ones((n, d)), np.ones((1, d))
    assert kernel.gram(X).shape == (n, n)
    assert kernel.gram(X, Y).shape == (n, 1)
    assert kernel.diagonal(X).shape == (n,)


def test_many_dimensions(points):
    X = np.random.default_rng(0).normal(size=(5, 100))
    scale = np.linspace(5.0, 15.0, 100)
    D = ((X[:, None] - X[None]) / scale) ** 2
    np.testing.assert_allclose(kx.SEKernel(scale).gram(X), np.exp(-0.5 * D.sum(-1)), rtol=1e-12)
    np.testing.assert_allclose(kx.LinearKernel().gram(X), X @ X.T, rtol=1e-12, atol=1e-12)
    K = np.asarray((kx.LinearKernel() * kx.PeriodicKernel(9.0, 3.0)).gram(X))
    np.testing.assert_array_equal(K, K.T)
