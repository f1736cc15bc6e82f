"""Products of kernels on Cartesian grids, against the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.matrixfree._kronecker import KroneckerOperator

RNG = np.random.default_rng(3)
GRIDS = (np.sort(RNG.normal(size=5)), RNG.normal(size=(4, 2)), RNG.normal(size=3))
SHAPE = (5, 4, 3)
KERNELS = (
    1.5 * kx.Matern52Kernel(0.9),
    kx.SEKernel(0.8) + 0.3 * kx.LinearKernel(),
    kx.PeriodicKernel(1.0, 2.0),
)
# The points of the 60 cells in C order, and what is said of them.
CELLS = np.indices(SHAPE).reshape(3, -1)
POINTS = np.column_stack([GRIDS[0][CELLS[0]], GRIDS[1][CELLS[1]], GRIDS[2][CELLS[2]]])
SOME = RNG.uniform(size=SHAPE) < 0.7
VALUES = RNG.normal(size=(60, 3))


def close(found, expected, tolerance=1e-10):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def product(kernels, grids, kron):
    K = np.ones((1, 1))
    for kernel, grid in zip(kernels, grids, strict=True):
        K = kron(K, kernel.gram(grid))
    return K


def dense(kernels, grids, noise, seen):
    K = product(kernels, grids, np.kron)[np.ix_(seen.ravel(), seen.ravel())]
    return K + np.diag(np.broadcast_to(noise, len(K)))


@jax.jit
def slopes_by_the_matrix(kernels, grids, noise, A):
    """Of the bilinear form of all cells: those that are not seen have zeros in A."""

    def form(kernels, grids, noise):
        K = product(kernels, grids, jnp.kron) + noise * jnp.eye(60)
        return jnp.sum(A * (K @ A[:, ::-1]))

    return jax.grad(form, argnums=(0, 1, 2))(kernels, grids, noise)


@jax.jit
def looks(operator, V, index):
    """All that an operator says of itself, from one program."""
    found = [operator @ V, operator @ V[:, 0], operator.dense(), operator.diagonal()]
    return [*found, operator.noise(), operator.columns(index), operator.X]


@pytest.mark.parametrize("seen", [np.ones(SHAPE, bool), SOME], ids=["all", "some"])
def test_product_diagonal_and_columns(seen):
    V, index = VALUES[seen.ravel()], np.array([3, seen.sum() - 1, 3], np.int32)
    noise = RNG.uniform(0.1, 0.2, size=len(V))
    operator = KroneckerOperator(KERNELS, GRIDS, noise, observed=seen)
    K = dense(KERNELS, GRIDS, noise, seen)
    assert operator.shape == K.shape
    expected = [K @ V, K @ V[:, 0], K, np.diag(K), noise, K[:, index], POINTS[seen.ravel()]]
    for found, value in zip(looks(operator, V, index), expected, strict=True):
        close(found, value)


def test_observed_cells():
    all_there = KroneckerOperator(KERNELS, GRIDS, observed=np.ones(60, bool))
    assert all_there.cells is None
    cells = [KroneckerOperator(KERNELS, GRIDS, observed=o).cells for o in (SOME, SOME.ravel())]
    np.testing.assert_array_equal(cells, [np.flatnonzero(SOME)] * 2)


@pytest.mark.parametrize("seen", [np.ones(SHAPE, bool), SOME], ids=["all", "some"])
def test_gradient_of_the_bilinear_form(seen):
    A = VALUES[seen.ravel()]

    def form(kernels, grids, noise):
        operator = KroneckerOperator(kernels, grids, noise, observed=seen)
        return operator.bilinear(A, A[:, ::-1])

    at = KERNELS, tuple(map(jnp.asarray, GRIDS)), jnp.asarray(0.1)
    found = jax.jit(jax.grad(form, argnums=(0, 1, 2)))(*at)
    expected = slopes_by_the_matrix(*at, np.where(seen.reshape(60, 1), VALUES, 0.0))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(a, b)


A0, A1, A2 = (lambda k: kx.ActiveDimsKernel(k, [0])), (1, 2), (-1,)
PRODUCTS = {
    "active": 2.0 * A0(kx.Matern12Kernel(0.7)) * kx.ActiveDimsKernel(kx.SEKernel(0.9), A1)
    * kx.ActiveDimsKernel(kx.PeriodicKernel(1.0, 2.0), A2),
    "se": kx.SEKernel(0.8),
    "se per dimension": 0.5 * kx.SEKernel([0.5, 1.0, 1.5, 0.7]),
    "periodic": kx.PeriodicKernel([0.5, 1.0, 1.5, 0.7], 3.0),
    "ard": kx.ARDKernel(kx.SEKernel() * A0(kx.Matern32Kernel()), [0.5, 1.0, 1.5, 0.7]) * 1.2,
    "ard in dims": kx.ActiveDimsKernel(kx.ARDKernel(kx.SEKernel(), [0.5, 0.7, 0.9]), [3, 2, 0]),
    "se in dims": kx.ActiveDimsKernel(kx.SEKernel([0.5, 0.7]), [3, 0]),
    "power": (1.1 * A0(kx.Matern32Kernel()) * kx.ActiveDimsKernel(kx.SEKernel(), [2, 1])) ** 2,
    "sum of one axis": A0(kx.SEKernel() + kx.LinearKernel()) * kx.ActiveDimsKernel(
        kx.ActiveDimsKernel(kx.Matern52Kernel(), [1]), A1),
    "tied": kx.tie(
        A0(kx.SEKernel(0.6)) * kx.ActiveDimsKernel(kx.SEKernel(), A2),
        {"right_kernel.inner_kernel.length_scale": "left_kernel.inner_kernel.length_scale"},
    ),
    "constant": 1.5 * kx.ConstantKernel(2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_one_kernel_is_split(name):
    kernel = PRODUCTS[name]
    operator = KroneckerOperator.from_product(kernel, GRIDS, 0.1, observed=SOME)
    X = POINTS[SOME.ravel()]
    close(operator.dense(), kernel.gram(X) + 0.1 * np.eye(len(X)))


def test_gradient_through_the_split():
    def form(kernel):
        return KroneckerOperator.from_product(kernel, GRIDS).bilinear(VALUES, VALUES)

    def plain(kernel):
        return jnp.sum(VALUES * (kernel.gram(POINTS) @ VALUES))

    kernel = kx.tie(
        PRODUCTS["ard"] * A0(kx.SEKernel(0.5)) * kx.ActiveDimsKernel(kx.SEKernel(), A1),
        {
            "right_kernel.inner_kernel.length_scale":
            "left_kernel.right_kernel.inner_kernel.length_scale",
        },
    )  # fmt: skip
    found, expected = (jax.jit(jax.grad(f))(kernel) for f in (form, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(a, b)


def test_outside_the_constraint_is_nan():
    of = lambda scale: KroneckerOperator.from_product(
        kx.ARDKernel(kx.SEKernel(), scale * jnp.ones(2)), GRIDS[::2]
    )
    assert jnp.isnan(jax.jit(lambda scale: of(scale) @ jnp.ones(15))(-1.0)).all()


def test_nothing_as_large_as_the_matrix_is_kept():
    grids, A = (jnp.arange(90.0), jnp.arange(100.0)), jnp.ones((9000, 2))
    form = lambda kernel: KroneckerOperator.from_product(kernel, grids, 0.1).bilinear(A, A)
    compiled = jax.jit(jax.value_and_grad(form)).lower(kx.SEKernel(9.0)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 9000**2 * 8 / 100


def test_in_32_bits(x64_off):
    grids, V = [grid.astype(np.float32) for grid in GRIDS], VALUES.astype(np.float32)
    kernels = (kx.Matern52Kernel(0.9), kx.SEKernel(0.8), kx.PeriodicKernel(1.0, 2.0))
    operator = KroneckerOperator(kernels, grids, 0.1, observed=SOME)
    K = dense(kernels, grids, np.float32(0.1), SOME)
    found, _, whole, diagonal, *_ = looks(operator, V[SOME.ravel()], np.array([4], np.int32))
    assert found.dtype == diagonal.dtype == jnp.float32
    close(found, K @ V[SOME.ravel()], 1e-5)
    close(whole, K, 1e-5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (kx.Matern32Kernel(), r"`Matern32\(.*` reads several axes of the grid and is no product"),
        (2.0 * (kx.SEKernel() + 1.0), "multiply kernels of one axis each"),
        (kx.SEKernel() + kx.WhiteNoiseKernel(), "`kernel` has white noise"),
        (kx.BatchKernel(kx.SEKernel(), 2), "is a batch of kernels"),
        ("SE", "expected a kernel"),
    ],
)
def test_what_is_no_product(kernel, message):
    with pytest.raises(kx.ParameterError, match=message):
        KroneckerOperator.from_product(kernel, GRIDS)


@pytest.mark.parametrize(
    ("error", "message", "kernels", "grids", "more"),
    [
        (kx.ShapeError, "`kernels` has 2 and `grids` 3", KERNELS[:2], GRIDS, {}),
        (kx.ShapeError, "`grids` is empty", (), (), {}),
        (kx.ShapeError, r"`grids\[1\]` has shape \(2, 1, 1\)", KERNELS[:2],
         (GRIDS[0], np.ones((2, 1, 1))), {}),
        (kx.ShapeError, r"`grids\[0\]` has shape \(0,\)", KERNELS[:1], ([],), {}),
        (kx.InputError, r"`grids\[0\]` holds NaN", KERNELS[:1], ([0.0, np.nan],), {}),
        (kx.ParameterError, r"`kernels\[1\]` has white noise",
         (kx.SEKernel(), kx.SEKernel() + kx.WhiteNoiseKernel()), GRIDS[::2], {}),
        (kx.ShapeError, r"expected a number or \(60,\)", KERNELS, GRIDS,
         {"noise_variance": np.ones(59)}),
        (kx.ParameterError, "`noise_variance` is -1.0", KERNELS, GRIDS, {"noise_variance": -1.0}),
        (kx.DTypeError, "`observed` has dtype int64", KERNELS, GRIDS,
         {"observed": np.ones(60, int)}),
        (kx.ShapeError, r"`observed` has shape \(5, 4\)", KERNELS, GRIDS,
         {"observed": np.ones((5, 4), bool)}),
        (kx.ShapeError, "0 observed cells", KERNELS, GRIDS, {"observed": np.zeros(60, bool)}),
    ],
)  # fmt: skip
def test_refused(error, message, kernels, grids, more):
    with pytest.raises(error, match=message):
        KroneckerOperator(kernels, grids, **more)


def test_cells_are_chosen_outside():
    of = lambda observed: KroneckerOperator(KERNELS, GRIDS, observed=observed).diagonal()
    with pytest.raises(kx.ShapeError, match="`observed` is traced"):
        jax.jit(of)(SOME)
