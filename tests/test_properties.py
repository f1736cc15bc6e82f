"""What holds for every kernel and every set of points, on examples that Hypothesis draws."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernax as kx
from kernax.checks._quick import quick_jit
from kernax.checks._subject import size
from tests.strategies import (
    PROFILE,
    STATIONARY,
    STRUCTURES,
    D,
    M,
    N,
    masks,
    points,
    structures,
    trees,
    values_of,
)

# Kernels are built while drawing, where the checks of types pick at random what they look at.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

EPS = float(np.finfo(float).eps)
GRADIENTS = ("per dimension", "ard", "noise")  # those compile longest


@quick_jit
def evaluate(k, X, Y):
    return k.gram(X), k.gram(X, Y), k.diagonal(X)


@quick_jit
def gram_alone(k, X):
    return k.gram(X)


def gram(k, X):
    """The matrix, by the program that most examples have compiled already where it fits."""
    fits = X.shape == (N, D) and X.dtype == np.float64
    return evaluate(k, X, X[:M])[0] if fits else gram_alone(k, X)


def tolerance(k, K, eps=EPS, d=D):
    """What rounding may do to values as large as those of K."""
    return 8 * (16 + d) * size(k) * eps * float(np.abs(K).max(initial=0.0))


def agree(k, found, expected, scale=None, **rounding):
    atol = tolerance(k, expected if scale is None else scale, **rounding)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def least_eigenvalue(K):
    return np.linalg.eigvalsh(np.asarray(K, float))[0]


def definite(k, K, **rounding):
    return least_eigenvalue(K) >= -len(K) * tolerance(k, K, **rounding)


# --- one kernel ---------------------------------------------------------------------------------


@given(structures(), points(), points(M))
def test_symmetric_definite_and_with_its_diagonal(k, X, Y):
    K, cross, diagonal = map(np.asarray, evaluate(k, X, Y))
    np.testing.assert_array_equal(K, K.T)
    assert definite(k, K)
    agree(k, np.diag(K), diagonal)
    # The covariance of two points is bounded by their variances.
    other = np.asarray(evaluate(k, np.concatenate([Y, Y]), Y)[2])[:M]
    bound = np.sqrt(diagonal[:, None] * other[None, :])
    assert (np.abs(cross) <= bound + tolerance(k, max(diagonal.max(), other.max()))).all()


@given(structures(), points())
def test_jit_changes_nothing(k, X):
    K = np.asarray(k.gram(X))
    np.testing.assert_array_equal(K, K.T)
    agree(k, gram(k, X), K)


@given(
    structures(tuple(STATIONARY)), points(offset=False),
    st.sampled_from([0.125, 1.0, 4.0]), st.integers(-8, 8),
)  # fmt: skip
def test_shifts_and_scales_of_all_lengths(k, X, a, c):
    moved = k.replace(
        **{path: a * v for path, v in k.hyperparameters.items() if is_length(k, path)}
    )
    agree(k, gram(moved, a * X + 64.0 * c), gram(k, X))


def is_length(k, path):
    """Whether a hyperparameter is in units of the points, which inside ARD are scaled already."""
    *above, last = path.split(".")
    for name in above:
        if isinstance(k, kx.ARDKernel):
            return False
        k = getattr(k, name)
    # That of a periodic kernel divides a sine.
    return last in ("length_scales", "period") or (
        last == "length_scale" and not isinstance(k, kx.PeriodicKernel)
    )


@given(structures(), points(), st.permutations(range(N)))
def test_the_order_of_points_is_that_of_rows(k, X, order):
    K = np.asarray(gram(k, X))
    agree(k, gram(k, X[list(order)]), K[np.ix_(order, order)])


@given(structures(), points())
def test_blocks_are_parts_of_the_whole(k, X):
    K, cross, diagonal = map(np.asarray, evaluate(k, X, X[M:]))
    agree(k, cross[:M], K[:M, M:], K)
    agree(k, gram(k, X[:M]), K[:M, :M], K)
    agree(k, gram(k, X[M:]), K[M:, M:], K)
    agree(k, evaluate(k, X[::-1], X[:M])[2], diagonal[::-1])


@given(structures(), points())
def test_32_bits_are_close_to_64(k, X):
    X = X.astype(np.float32)
    k32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), k)
    K32, K = gram(k32, X), np.asarray(gram(k, X.astype(float)))
    assert K32.dtype == jnp.float32
    eps = float(np.finfo(np.float32).eps)
    agree(k, K32, K, eps=eps)
    assert definite(k, K32, eps=eps)


# --- padding ------------------------------------------------------------------------------------


@given(structures(), points(), masks(), st.sampled_from([np.nan, 0.0, 1e30]))
def test_padding_changes_no_value(k, X, mask, filler):
    filled, real = np.where(mask[:, None], X, filler), np.ix_(mask, mask)
    K, expected = np.asarray(gram(k, X)), np.eye(N)
    expected[real] = K[real]
    masked = np.asarray(masked_gram(k, filled, mask))
    agree(k, masked, expected, K)
    np.testing.assert_array_equal(masked[~mask], np.eye(N)[~mask])
    nan = np.asarray(gram(k, np.where(mask[:, None], X, np.nan)))
    agree(k, nan[real], K[real], K)
    assert np.isnan(nan[~mask]).all()
    assert np.isnan(nan[:, ~mask]).all()


@quick_jit
def masked_gram(k, X, mask):
    return k.gram(X, mask=mask)


@quick_jit
def slopes(k, X, mask, weights):
    """Derivatives of a weighted sum, in which padding has no weight."""
    return jax.grad(lambda k, X: jnp.sum(weights * k.gram(X, mask=mask)), argnums=(0, 1))(k, X)


@given(structures(GRADIENTS), points(), masks(), st.sampled_from([np.nan, 0.0, 1e30]))
def test_padding_changes_no_gradient(k, X, mask, filler):
    weights = np.cos(np.arange(N * N).reshape(N, N)) * (mask[:, None] & mask)
    wanted, moved = slopes(k, X, np.ones(N, bool), weights)
    for how in (mask, np.ones(N, bool)) if np.isnan(filler) else (mask,):
        filled = np.where(mask[:, None], X, filler)
        found, shifted = slopes(k, filled, how, weights)
        for path, value in wanted.hyperparameters.items():
            scale = max(float(np.abs(value).max()), 1.0)
            agree(k, found.hyperparameters[path], value, 64 * scale)
        agree(k, shifted, np.where(mask[:, None], moved, 0.0), 64 * max(np.abs(moved).max(), 1.0))


# --- several kernels ----------------------------------------------------------------------------

TRIPLES = {
    "smooth": (kx.SEKernel(), kx.PeriodicKernel(), kx.RationalQuadraticKernel()),
    "rough": (kx.Matern12Kernel(), kx.LinearKernel(), kx.Matern52Kernel([1.0, 1.0])),
    "noisy": (kx.WhiteNoiseKernel(), kx.Matern32Kernel(), kx.ConstantKernel()),
}


@quick_jit
def combined(a, b, c, X):
    A, B = a.gram(X), b.gram(X)
    return [
        [(a + b).gram(X), (b + a).gram(X), A + B],
        [(a * b).gram(X), (b * a).gram(X), A * B],
        [(a + (b + c)).gram(X), ((a + b) + c).gram(X)],
        [(a * (b * c)).gram(X), ((a * b) * c).gram(X)],
        [(a * (b + c)).gram(X), (a * b + a * c).gram(X), ((b + c) * a).gram(X)],
        [((a + b) ** 2).gram(X), (a**2 + 2.0 * (a * b) + b**2).gram(X)],
        [(3.0 * a).gram(X), (a * 3.0).gram(X), (a + a + a).gram(X)],
    ]


def triples(name):
    return st.tuples(*map(values_of, TRIPLES[name]))


@given(st.sampled_from(list(TRIPLES)).flatmap(triples), points())
def test_sums_and_products_commute_associate_and_distribute(parts, X):
    a, b, c = parts
    assert sum([a, b, c]).equals((a + b) + c)
    for first, *others in combined(a, b, c, X):
        for other in others:
            agree(a * b * c, other, first)
        assert definite(a * b * c, np.asarray(first))  # products of what is definite are


@given(structures(GRADIENTS).flatmap(lambda k: st.tuples(*[values_of(k)] * 3)), points())
def test_a_batch_is_a_loop(kernels, X):
    each = np.stack([X, X + 1.0, 2.0 * X])
    batch = kx.BatchKernel(kernels[0], 3, 0)
    values = {
        path: np.stack([k.hyperparameters[path.removeprefix("inner_kernel.")] for k in kernels])
        for path in batch.hyperparameters
    }
    together = np.asarray(gram(batch.replace(**values), each))
    for k, own, K in zip(kernels, each, together, strict=True):
        agree(k, K, gram(k, own))


# --- any tree -----------------------------------------------------------------------------------


@given(trees(D))
def test_files_and_copies_are_equal(tmp_path_factory, k):
    path = tmp_path_factory.getbasetemp() / "kernel.json"
    kx.save(path, k)
    for twin in (kx.load(path), pickle.loads(pickle.dumps(k)), copy.deepcopy(k), k.replace()):
        assert k.equals(twin)
        assert repr(twin) == repr(k)
    for name, value in k.hyperparameters.items():
        other = k.replace(**{name: 2.0 * value + 1.0})
        assert not k.equals(other)
        assert other.structure is k.structure


@settings(max_examples=6 if PROFILE == "ci" else 100)
@given(trees(D), points(), points(M), st.data())
def test_any_tree(k, X, Y, data):
    K, cross, diagonal = map(np.asarray, evaluate(k, X, Y))
    assert K.shape == (N, N)
    assert cross.shape == (N, M)
    np.testing.assert_array_equal(K, K.T)
    assert definite(k, K)
    agree(k, np.diag(K), diagonal)
    other = data.draw(values_of(k))
    agree(k, evaluate(other, X, X[:M])[1][M:], np.asarray(gram(other, X))[M:, :M])


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structures_are_not_empty(name):
    """What the examples above are drawn from is what it says."""
    assert STRUCTURES[name].sign() == 1
    assert STRUCTURES[name].stationary == (name in STATIONARY or name == "noise")
