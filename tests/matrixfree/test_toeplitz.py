"""Stationary kernels on regular grids, against the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.matrixfree._toeplitz import ToeplitzOperator, _smooth

RNG = np.random.default_rng(4)
X = np.linspace(3.0, 7.0, 41)
SOME = RNG.uniform(size=41) < 0.7
VALUES = RNG.normal(size=(41, 3))
KERNELS = [
    kx.SEKernel(0.8),
    2.0 * kx.Matern12Kernel(1.3) * kx.PeriodicKernel(1.0, 2.0) + kx.WhiteNoiseKernel(0.2),
    kx.ARDKernel(kx.RationalQuadraticKernel(), [0.6]) + kx.CosineKernel(1.7),
    kx.SEKernel(0.5) * (1.0 + kx.WhiteNoiseKernel(0.1)),
]
WHITE = [0.0, 0.2, 0.0, 0.1]  # what their white noise adds to the diagonal


def close(found, expected, tolerance=1e-10):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@jax.jit
def looks(operator, V, index):
    """All that an operator says of itself, from one program."""
    found = [operator @ V, operator @ V[:, 0], operator.dense(), operator.diagonal()]
    return [*found, operator.noise(), operator.columns(index), operator.X[:, 0]]


@pytest.mark.parametrize("number", range(4))
def test_product_diagonal_and_columns(number):
    kernel, seen = KERNELS[number], SOME if number % 2 else np.ones(41, bool)
    V, index = VALUES[seen], np.array([3, seen.sum() - 1, 3], np.int32)
    noise = RNG.uniform(0.1, 0.2, size=len(V))
    operator = ToeplitzOperator(kernel, X, noise, observed=seen)
    K = np.asarray(kernel.gram(X[seen])) + np.diag(noise)
    added = noise + WHITE[number]
    assert operator.shape == K.shape
    expected = [K @ V, K @ V[:, 0], K, np.diag(K), added, K[:, index], X[seen]]
    for found, value in zip(looks(operator, V, index), expected, strict=True):
        close(found, value)


@pytest.mark.parametrize("seen", [np.ones(41, bool), SOME], ids=["all", "some"])
def test_gradient_of_the_bilinear_form(seen):
    A = VALUES[seen]

    def form(kernel, step, noise):
        operator = ToeplitzOperator(
            kernel, None, noise, start=3.0, step=step, size=41, observed=seen
        )
        return operator.bilinear(A, A[:, ::-1])

    def plain(kernel, step, noise):
        K = kernel.gram((3.0 + step * jnp.arange(41.0))[seen]) + noise * jnp.eye(len(A))
        return jnp.sum(A * (K @ A[:, ::-1]))

    at = KERNELS[1 if seen.all() else 2], jnp.asarray(0.1), jnp.asarray(0.3)
    found, expected = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(*at) for f in (form, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(a, b)


@pytest.mark.parametrize("grid", [X[::-1], X[:, None], X[:1], X[:2], [2, 4, 6], np.zeros(4)])
def test_grids(grid):
    operator = ToeplitzOperator(KERNELS[0], grid, 0.1)
    K = KERNELS[0].gram(np.asarray(grid)) + 0.1 * np.eye(len(grid))
    close(operator.dense(), K)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [0.1, 1e-3, 1 / 3])
def test_what_rounding_does_to_a_grid_is_allowed(dtype, step):
    for grid in (np.linspace(50, 50 + 300 * step, 301), 50 + step * np.arange(301)):
        operator = ToeplitzOperator(KERNELS[0], grid.astype(dtype))
        np.testing.assert_allclose(operator.step, step, rtol=1e-5 if dtype == np.float32 else 1e-9)


def test_nothing_as_large_as_the_matrix_is_kept():
    grid, A = np.arange(10_000.0), jnp.ones((10_000, 2))
    form = lambda kernel: ToeplitzOperator(kernel, grid, 0.1).bilinear(A, A)
    compiled = jax.jit(jax.value_and_grad(form)).lower(kx.SEKernel(9.0)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10_000 * 8 * 100


def test_in_32_bits(x64_off):
    kernel = kx.Matern32Kernel(0.8) + kx.WhiteNoiseKernel(0.1)
    grid, V = X.astype(np.float32), VALUES.astype(np.float32)[SOME]
    operator = ToeplitzOperator(kernel, grid, 0.1, observed=SOME)
    K = np.asarray(kernel.gram(grid[SOME])) + 0.1 * np.eye(len(V))
    found, _, whole, diagonal, *_ = looks(operator, V, jnp.array([4]))
    assert found.dtype == diagonal.dtype == jnp.float32
    close(found, K @ V, 1e-5)
    close(whole, K, 1e-5)


def test_lengths_of_the_circle():
    numbers = sorted(2**a * 3**b * 5**c for a in range(9) for b in range(6) for c in range(4))
    for n in range(1, 260):
        assert _smooth(n) == next(m for m in numbers if m >= n)


GAP = np.delete(X, 17)
DRIFT = np.cumsum(np.linspace(1.0, 1.0 + 1e-5, 200))


@pytest.mark.parametrize(
    ("error", "message", "kernel", "given"),
    [
        (kx.ParameterError, "is not stationary", kx.LinearKernel(), {"X": X}),
        (kx.ParameterError, "is a batch", kx.BatchKernel(kx.SEKernel(), 2), {"X": X}),
        (kx.ParameterError, "expected a kernel", 1.0, {"X": X}),
        (kx.InputError, r"from row 16 to row 17 it goes by 0\.2, and usually by 0\.1;",
         kx.SEKernel(), {"X": GAP}),
        (kx.InputError, "`X` is not regular: from row 0 to row 1", kx.SEKernel(), {"X": DRIFT}),
        (kx.InputError, "`X` holds nan at row 1", kx.SEKernel(), {"X": [0.0, np.nan, 2.0]}),
        (kx.ShapeError, r"`X` has shape \(41, 2\)", kx.SEKernel(), {"X": np.ones((41, 2))}),
        (kx.ShapeError, r"`X` has shape \(0,\)", kx.SEKernel(), {"X": []}),
        (kx.ParameterError, "`X` is not given, `start` is None, `step` 0.1 and `size` None",
         kx.SEKernel(), {"step": 0.1}),
        (kx.ParameterError, "expected one grid", kx.SEKernel(), {}),
        (kx.ParameterError, "`X` is given, `start` is 0.0", kx.SEKernel(), {"X": X, "start": 0.0}),
        (kx.InputError, "`X` holds inf at row 2", kx.SEKernel(), {"X": [0.0, 1.0, np.inf]}),
        (kx.ShapeError, "`size` is 0", kx.SEKernel(), {"step": 0.1, "size": 0}),
        (kx.ShapeError, r"`step` \(2,\)", kx.SEKernel(), {"step": [0.1, 0.2], "size": 3}),
        (kx.ShapeError, r"expected a number or \(41,\)", kx.SEKernel(),
         {"X": X, "noise_variance": np.ones(40)}),
        (kx.ShapeError, r"`observed` has shape \(40,\)", kx.SEKernel(),
         {"X": X, "observed": SOME[1:]}),
    ],
)  # fmt: skip
def test_refused(error, message, kernel, given):
    with pytest.raises(error, match=message):
        ToeplitzOperator(kernel, **given)


def test_a_traced_grid_is_refused():
    with pytest.raises(kx.InputError, match="`X` is traced"):
        jax.jit(lambda X: ToeplitzOperator(kx.SEKernel(), X).diagonal())(X)
