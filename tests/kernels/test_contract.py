"""The contract that every kernel of the table meets: one formula, and everything from it."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, FAMILIES, NAMES, POSITIVE, VARIED, gram_reference
from tests.test_checks import CHECKED

EPS = np.finfo(float).eps
every = pytest.mark.parametrize("name", NAMES)
# What depends on the driver more than on the formula, and compiles much.
MOST = VARIED + FAMILIES
most = pytest.mark.parametrize("name", MOST)
# Those that `check_kernel` is tried on too, which looks at this and more: pairs against matrices,
# jit and vmap against calls, the gradients of padded points.
PASSED = [name for name in NAMES if CHECKED.get(name) is CASES[name].kernel]
# Where it is the call that is tested and not the kernel.
some = pytest.mark.parametrize("name", ["matern52", "noise times a kernel", "a user's wrapper"])


@pytest.fixture
def X():
    """Points in the plane, two of which coincide; not a multiple of a vector register."""
    X = np.random.default_rng(1).normal(size=(19, 2)) * 1.3
    X[4] = X[1]
    return X


@every
def test_matrices_are_the_formula(name, X):
    case = CASES[name]
    k, other = case.kernel, X[:3] + 0.25
    expected, cross = gram_reference(case, X), gram_reference(case, X, other)
    tol = {"rtol": 1e-12, "atol": 40 * EPS * np.abs(expected).max()}

    @jax.jit  # one compilation, where each call by itself would have its own
    def evaluate(k, X, other):
        return k.gram(X), k.gram(X, other), k.diagonal(X), k.pairwise(X[1], other[0])

    K, found, diagonal, pair = evaluate(k, jnp.asarray(X), jnp.asarray(other))
    np.testing.assert_allclose(K, expected, **tol)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(found, cross, **tol)
    np.testing.assert_allclose(diagonal, np.diag(expected), **tol)
    np.testing.assert_allclose(np.diag(K), diagonal, rtol=0, atol=4 * EPS * np.max(K))
    np.testing.assert_allclose(pair, cross[1, 0], **tol)
    if name in POSITIVE:
        assert k.sign() == 1
        assert np.linalg.eigvalsh(K)[0] >= -len(X) * EPS * np.trace(K)


@some
def test_each_form_of_call_gives_its_shape(name, points):
    case = CASES[name]
    k, other = case.kernel, points[:3] + 0.25
    K, cross = gram_reference(case, points), gram_reference(case, points, other)
    tol = {"rtol": 1e-12, "atol": 40 * EPS * np.abs(K).max()}
    np.testing.assert_allclose(k(points), K, **tol)
    np.testing.assert_allclose(k(points, points), gram_reference(case, points, points), **tol)
    np.testing.assert_allclose(k.gram(points, points), k(points, points), **tol)
    np.testing.assert_allclose(k(points, other), cross, **tol)
    np.testing.assert_allclose(k(points, other[0]), cross[:, 0], **tol)
    np.testing.assert_allclose(k(points[1], other), cross[1], **tol)
    np.testing.assert_allclose(k(points[1], other[0]), cross[1, 0], **tol)
    np.testing.assert_allclose(k(points[1]), K[1, 1], **tol)
    np.testing.assert_allclose(k.pairwise(*jnp.asarray([points[1], other[0]])), cross[1, 0], **tol)
    batch = k(np.stack([points, points + 1]), np.stack([other, other]))
    np.testing.assert_allclose(batch[0], cross, **tol)
    np.testing.assert_allclose(batch[1], gram_reference(case, points + 1, other), **tol)


@pytest.mark.parametrize("name", [name for name in MOST if name not in PASSED])
def test_the_same_inside_jit_and_vmap(name, points):
    k, X = CASES[name].kernel, jnp.asarray(points)

    @jax.jit
    def evaluate(values):
        kernel = k.replace(**values)  # built from its hyperparameters inside both
        return kernel.gram(X), jax.vmap(lambda x: kernel(x, X))(X), kernel.gram(X, X)

    K, rows, cross = evaluate(k.hyperparameters)
    tol = {"rtol": 1e-13, "atol": 8 * EPS * np.abs(K).max()}
    np.testing.assert_allclose(K, k.gram(points), **tol)
    np.testing.assert_allclose(rows, cross, **tol)


@most
def test_gradients_are_what_differences_say(name, points):
    k, X = CASES[name].kernel, jnp.asarray(points)
    weights = np.sin(np.arange(36.0)).reshape(6, 6)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def evaluate(values):
        K = k.replace(**values).gram(X)  # built from its hyperparameters inside both
        return jnp.sum(weights * K), jnp.max(jnp.abs(K))

    values = k.hyperparameters
    (_, scale), gradient = evaluate(values)
    for path, value in values.items():
        step = 1e-5 * max(float(np.max(np.abs(value))), 0.1)
        above, below = (evaluate(values | {path: value + s})[0][0] for s in (step, -step))
        slope = float(np.sum(gradient[path]))
        difference = float(above - below) / (2 * step)
        assert np.isfinite(slope)
        np.testing.assert_allclose(slope, difference, rtol=2e-5, atol=1e-7 * max(scale, 1.0))


@pytest.fixture
def padded(points):
    """The points with two rows of padding among them, and which rows are real."""
    X = np.vstack([points[:2], [[np.nan, 0.3]], points[2:], [[np.nan, np.nan]]])
    return X, np.array([0, 1, 3, 4, 5, 6])


@pytest.mark.optimised
@most
def test_padded_equals_unpadded(name, points, padded):
    k, (X, real) = CASES[name].kernel, padded
    plain = np.asarray(k.gram(points))
    K = np.asarray(k.gram(X))
    np.testing.assert_array_equal(K[np.ix_(real, real)], plain)
    assert np.isnan(K[2]).all()
    assert np.isnan(K[:, 7]).all()
    # With a mask, whatever fills the rows, they are those of the identity.
    filled, mask = np.where(np.isnan(X), 1e30, X), np.isin(np.arange(8), real)
    expected = np.eye(8)
    expected[np.ix_(real, real)] = plain
    np.testing.assert_array_equal(k.gram(filled, mask=mask), expected)


@pytest.mark.parametrize("name", [name for name in VARIED if name not in PASSED])
def test_padding_changes_no_gradient(name, points, padded):
    k, (X, real) = CASES[name].kernel, padded
    filled, mask = np.where(np.isnan(X), 1e30, X), np.isin(np.arange(8), real)

    @jax.jit
    def gradients(k, points, X, filled, mask):
        return (
            jax.grad(lambda k: jnp.sum(k.gram(points)))(k),
            jax.grad(lambda k: jnp.nansum(k.gram(X)))(k),
            jax.grad(lambda k: jnp.sum(k.gram(filled, mask=mask)))(k),
        )

    wanted, *found = gradients(k, points, X, filled, mask)
    for path, value in wanted.hyperparameters.items():
        for other in found:
            np.testing.assert_allclose(other.hyperparameters[path], value, rtol=1e-12, atol=1e-13)


@pytest.mark.optimised
@some
def test_padding_in_cross_matrices_and_diagonals(name, points, padded):
    k, (X, real) = CASES[name].kernel, padded
    filled, mask = np.where(np.isnan(X), 1e30, X), np.isin(np.arange(8), real)
    cross = np.asarray(k(X, points[:3]))
    np.testing.assert_array_equal(cross[real], k(points, points[:3]))
    assert np.isnan(cross[~mask]).all()
    assert np.isnan(np.asarray(k.diagonal(X))[[2, 7]]).all()
    np.testing.assert_array_equal(k.gram(X, mask=np.ones(8, bool)), k.gram(filled, mask=mask))
    masked = np.asarray(k.gram(filled, points, mask=mask))
    np.testing.assert_array_equal(masked[real], k.gram(points, points))
    assert (masked[~mask] == 0).all()
    np.testing.assert_allclose(k.gram(points, filled, mask2=mask), masked.T, rtol=1e-14)


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
    assert "Array" not in text
    assert "Kernel" not in text
    assert repr(jax.eval_shape(lambda k: k, CASES[name].kernel)) is not None
    assert repr(jax.tree.map(lambda _: 0, CASES[name].kernel))  # as JAX names axes in its errors


@most
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
