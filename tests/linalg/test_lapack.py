"""The numbers of the factorisations, on every route: residuals, failures, and what was given."""

import os
import sys
from functools import cache, partial
from types import ModuleType

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx
from kernax.linalg import _blocked, cholesky
from kernax.linalg._lapack import CYCLES, LARGEST, WAIT, _scipy, factorise, routines
from kernax.linalg._primitive import SMALL, density, factor, inverse
from tests.linalg.matrices import ROUTES, amounts, hard, pair, ratio, value, with_condition

EPS = np.finfo(float).eps


@pytest.fixture
def blocks_of_three(monkeypatch):
    """Matrices of any size factorised as large ones are."""
    monkeypatch.setattr(_blocked, "AT_ONCE", 0)
    monkeypatch.setattr(_blocked, "BLOCK", 3)


@cache
def compiled(route):
    return jax.jit(partial(inverse, route=route))


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(n, float) for n in (1, 2, 3, 5, 10, 50)] + [(10, np.float32), (50, np.float32)],
)
@pytest.mark.parametrize("route", ROUTES)
def test_residuals_are_those_of_lapack(route, n, dtype):
    if (route, n) == ("small", 50):
        n = SMALL
    A, eps = hard(n, dtype), np.finfo(dtype).eps
    rng = np.random.default_rng(n)
    # One right-hand side in general, and one that keeps the solution small.
    ys = np.stack([rng.normal(size=(len(A), n)), np.linalg.eigh(A.astype(float))[1][:, :, -1]])
    ys = ys.astype(dtype)
    run = jax.jit(jax.vmap(partial(inverse, route=route)))
    results = run(jnp.asarray(A), jnp.asarray(ys).swapaxes(0, 1), amounts(A))
    half, square, c, a, P = map(np.asarray, results)
    assert {x.dtype for x in (half, square, c, a, P)} == {np.dtype(dtype)}
    np.testing.assert_array_equal(P, P.swapaxes(1, 2))
    np.testing.assert_array_equal(c > 0, ~A.any(axis=2).all(axis=1))
    for i, M in enumerate(A.astype(np.longdouble)):
        M = M + c[i] * np.eye(n)
        norm = np.abs(M).sum(axis=0).max()
        for x, b in zip(a[i].astype(np.longdouble), ys[:, i], strict=True):
            size = np.linalg.norm(M.astype(float), 2) * np.linalg.norm(x.astype(float))
            assert np.linalg.norm((b - M @ x).astype(float)) <= 30 * n * eps * size
        X = P[i].astype(np.longdouble)
        residual = np.abs(np.eye(n) - M @ X).sum(axis=0).max()
        assert residual <= 30 * n * eps * norm * np.abs(X).sum(axis=0).max()
        if np.linalg.cond(M.astype(float)) < 3:
            exact = np.linalg.slogdet(M.astype(float))[1] / 2
            np.testing.assert_allclose(half[i], exact, atol=30 * n * eps)
            np.testing.assert_allclose(square[i], (ys[:, i] * a[i]).sum(axis=1), rtol=30 * n * eps)


@pytest.mark.parametrize("route", ["lapack", "library"])
@pytest.mark.parametrize("n", [3, 50, 300])
def test_factors_multiply_back(route, n):
    A = np.stack([with_condition(n, c) for c in (2.0, 0.1 / EPS)])
    L, c = jax.jit(jax.vmap(partial(factor, route=route)))(jnp.asarray(A), amounts(A))
    np.testing.assert_array_equal(c, 0.0)
    np.testing.assert_array_equal(L, np.tril(L))
    assert all(ratio(np.asarray(one), K) <= 30 for one, K in zip(L, A, strict=True))


@pytest.mark.optimised
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_values_and_gradients_in_fifty_digits(route, n):
    A = np.stack([with_condition(n, c, seed=5) for c in (3.0, 1e3)])
    y = np.random.default_rng(n).normal(size=n)
    both = jax.jit(jax.vmap(jax.value_and_grad(partial(value, route=route), (0, 1)), (0, None)))
    found, (dK, dy) = both(jnp.asarray(A), jnp.asarray(y))
    with mpmath.workdps(50):
        for i, M in enumerate(A):
            K, b = mpmath.matrix(M.tolist()), mpmath.matrix(y.tolist())
            P = K**-1
            a = P * b
            square = sum(b[j] * a[j] for j in range(n))
            expected = -(square + mpmath.log(mpmath.det(K)) + n * mpmath.log(2 * mpmath.pi)) / 2
            W = np.array([[(a[j] * a[k] - P[j, k]) / 2 for k in range(n)] for j in range(n)], float)
            np.testing.assert_allclose(found[i], float(expected), rtol=1e-12)
            np.testing.assert_allclose(dK[i], W, rtol=1e-10, atol=1e-12 * np.abs(W).max())
            np.testing.assert_allclose(dy[i], [-float(x) for x in a], rtol=1e-12)


@pytest.mark.parametrize("n", [5, SMALL, 150, 300])
def test_all_routes_give_the_same(n):
    K, y = pair(n)
    tries = amounts(np.asarray(K))
    one, *others = (
        compiled(route)(K, y, tries) for route in ROUTES if n <= SMALL or route != "small"
    )
    for other in others:
        for x, expected in zip(other, one, strict=True):
            np.testing.assert_allclose(x, expected, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(one[-1], one[-1].T)


def test_the_rounding_of_small_scales_and_large():
    """Near the ends of the range: nothing under- or overflows on the way."""
    K, y = map(np.asarray, pair(5))
    for route in ROUTES:
        run = compiled(route)
        half, square, _, _, P = map(np.asarray, run(K, y, np.zeros(3)))
        for e in (-1000, 1000):
            s = 2.0**e
            other = [*map(np.asarray, run(s * K, y, np.zeros(3)))]
            np.testing.assert_allclose(other[0] - half, 2.5 * e * np.log(2), rtol=1e-13)
            np.testing.assert_allclose(s * other[1], square, rtol=1e-14)
            np.testing.assert_allclose(s * other[4], P, rtol=1e-13)


def padded(A, n):
    """The matrix with rows and columns of the identity behind its own."""
    whole = np.eye(n)
    whole[: len(A), : len(A)] = A
    return whole


@pytest.mark.parametrize("size", [1, 5, 6])
def test_rows_of_the_identity_at_the_end_are_not_there(size):
    """To the bit, with jitter and where it does not help; each matrix has rows of its own."""
    n, good = 7, with_condition(size, 1e3)
    singular, wrong = np.ones((size, size)) * 2.0, -good
    others = [with_condition(n, 10.0), padded(with_condition(3, 10.0), n)]
    y, rhs = np.zeros((1, n)), np.random.default_rng(0).normal(size=size)
    y[0, :size] = rhs
    run = partial(factorise, routines("d"))
    for A in (good, singular, wrong):
        tries = np.broadcast_to(EPS * np.array([10.0, 100.0, 1000.0]), (3, 3))
        K = np.stack([padded(A, n), *others])
        for wanted in ("factor", "density", "inverse"):
            ys = () if wanted == "factor" else (np.stack([y] * 3),)
            own = () if wanted == "factor" else (rhs[None, None],)
            found = [x[0] for x in run(wanted, K.copy(), tries, *ys)]
            expected = [x[0] for x in run(wanted, A[None].copy(), tries[:1], *own)]
            if A is wrong:
                assert all(np.isnan(x).all() for i, x in enumerate(found) if x.ndim or i == 0)
                continue
            for x, alone in zip(found, expected, strict=True):
                part = x[tuple(slice(size if extent == n else None) for extent in x.shape)]
                np.testing.assert_array_equal(part, alone)
            for whole in (x for x in found if x.shape == (n, n)):
                np.testing.assert_array_equal(whole, padded(whole[:size, :size], n))


@pytest.mark.parametrize(("n", "m", "size"), [(1, 1, 1), (7, 2, 5), (150, 1, 150), (300, 3, 290)])
def test_slopes_are_made_of_the_inverse(n, m, size):
    """In one tile and in several, for one vector and for their sum, with padding behind."""
    rng = np.random.default_rng(n)
    K = np.stack([padded(with_condition(size, 1e3, seed=i), n) for i in range(2)])
    ys, tries = rng.normal(size=(2, m, n)), np.zeros((2, 3))
    ys[:, :, size:] = 0.0
    run = partial(factorise, routines("d"))
    *others, a, P = run("inverse", K.copy(), tries, ys)
    *same, b, W = run("slopes", K.copy(), tries, ys)
    for one, other in zip((*others, a), (*same, b), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = 0.5 * (np.einsum("gmi,gmj->gij", a, a) - m * P)
    np.testing.assert_allclose(W, expected, rtol=1e-13, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_array_equal(W, W.swapaxes(1, 2))


@pytest.mark.parametrize("n", [40, 200])
def test_rows_of_the_identity_with_values_have_slopes(n):
    """They are those of points that are far from all others, not of padding."""
    K, y = padded(with_condition(10, 1e2), n), np.random.default_rng(n).normal(size=n)
    W = jax.jit(jax.grad(value))(K, y)
    a = np.linalg.solve(K, y)
    expected = 0.5 * (np.outer(a, a) - np.linalg.inv(K))
    np.testing.assert_allclose(W, expected, rtol=1e-12, atol=1e-12)


def test_rows_that_only_look_like_those_of_the_identity_count():
    """A one on the diagonal and a zero in the first column, but not in the others."""
    A = np.eye(5)
    A[3, 1] = A[1, 3] = 0.5
    middle = np.eye(5)
    middle[4, 0] = middle[0, 4] = 0.5
    for K in (A, middle):
        tries, y = np.zeros((1, 3)), np.ones((1, 1, 5))
        *_, P = factorise(routines("d"), "inverse", K[None].copy(), tries, y)
        np.testing.assert_allclose(P[0], np.linalg.inv(K), rtol=1e-15, atol=1e-15)


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [float, np.float32])
def test_failures_are_nan_and_jitter_is_reported(route, dtype):
    """The ladder, element by element; a matrix that is not finite gets no jitter."""
    n, eps = 4, np.finfo(dtype).eps
    unit = n * eps * 2
    last = np.array([2, 0, -0.5, -1.5, -11, -99, -101], dtype) * np.array([1] + [unit] * 6, dtype)
    A = np.stack(
        [np.diag(np.array([2, 2, 2, x], dtype)) for x in last] + [np.eye(n, dtype=dtype)] * 4
    )
    A[7, 2, 1] = A[7, 1, 2] = np.nan
    A[8, 0, 0] = np.inf
    A[9, 3, 0] = A[9, 0, 3] = -np.inf
    A[10, 3, 3] = np.nan
    ys = np.ones((len(A), n), dtype)
    tries = np.broadcast_to(np.asarray([unit, 10 * unit, 100 * unit], dtype), (len(A), 3))
    step = np.array([0, 1, 1, 10, 100, 100, 100, 0, 0, 0, 0])

    @jax.jit
    @jax.vmap
    def all_three(K, y, tries):
        return inverse(K, y, tries, route), density(K, y, tries, route), factor(K, tries, route)

    (half, square, c, a, P), values, (L, again) = all_three(A, ys, tries)
    np.testing.assert_allclose(c, step * unit, rtol=4 * eps)
    good = np.arange(len(A)) < 6
    for x in (half, square, a, P):
        found = np.asarray(x).reshape(len(A), -1)
        assert np.isfinite(found[good]).all()
        assert np.isnan(found[~good]).all()
    exact = 1 / (np.diagonal(A, axis1=1, axis2=2) + np.asarray(c)[:, None])[good]
    np.testing.assert_allclose(np.diagonal(P, axis1=1, axis2=2)[good], exact, rtol=8 * eps)
    for one, other in zip(values, (half, square, c), strict=True):
        np.testing.assert_allclose(one, other, rtol=8 * eps)
    np.testing.assert_array_equal(again, c)
    assert (np.isnan(np.asarray(L)[:, -1, -1]) == ~good).all()
    np.testing.assert_allclose(
        np.asarray(L)[good] ** 2, (A + np.asarray(c)[:, None, None] * np.eye(n, dtype=dtype))[good],
        rtol=8 * eps,
    )  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_nan_and_overflow_in_y(route):
    K, y = map(np.array, pair(3))
    both = jax.jit(jax.value_and_grad(partial(value, route=route), (0, 1)))
    for bad in (1e200, np.inf, np.nan):
        y[1] = bad
        assert np.isnan(both(K, y)[0])
    _, square, c, a, P = compiled(route)(K, y, np.ones(3))
    assert np.isnan(square)
    assert np.isnan(a).all()
    assert c == 0.0
    np.testing.assert_allclose(P, np.linalg.inv(K), rtol=1e-13)


def test_the_ladder_of_a_dense_matrix_starts_from_what_was_given():
    """A failed attempt overwrites one triangle; the next one is made of the other."""
    x = np.linspace(0, 1, 40)
    K = jnp.asarray(np.exp(-0.5 * (x[:, None] - x) ** 2))
    L, c = factor(K, jnp.asarray([0.0, 1e-30, 1e-10]), "lapack")
    assert c == 1e-10
    assert ratio(np.asarray(L), np.asarray(K) + 1e-10 * np.eye(40)) <= 30


@pytest.mark.parametrize(
    ("n", "dtype"), [(3, float), (4, float), (8, float), (50, float), (50, np.float32)]
)
def test_large_matrices_are_done_in_blocks(blocks_of_three, n, dtype):
    test_residuals_are_those_of_lapack("lapack", n, dtype)
    test_factors_multiply_back("lapack", n)


def test_large_matrices_fail_as_small_ones(blocks_of_three):
    test_failures_are_nan_and_jitter_is_reported("lapack", float)
    test_the_ladder_of_a_dense_matrix_starts_from_what_was_given()


@pytest.mark.parametrize("n", [5, 40])
def test_inputs_are_never_overwritten(n):
    K, y = (np.array(x) for x in pair(n))
    before = K.copy(), y.copy()
    on_device = jnp.asarray(K), jnp.asarray(y)
    both = jax.jit(jax.value_and_grad(value))
    root = jax.jit(partial(cholesky, route="lapack"))
    for argument in ((K, y), on_device):
        both(*argument)
        root(argument[0], np.asarray(1.0 * n), np.ones(()))
        for one, other in zip(argument, before, strict=True):
            np.testing.assert_array_equal(one, other)
    # Nor are constants of a program, which have one piece of memory for all of its runs.
    fixed = jax.jit(lambda: jax.value_and_grad(value)(*on_device))
    for one, other in zip(fixed(), fixed(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_openblas_is_told_how_long_to_wait_while_it_is_loaded(monkeypatch):
    seen = {}

    class Loaded(ModuleType):
        def __getattr__(self, name):
            seen[name] = os.environ.get(WAIT)
            return name

    monkeypatch.setitem(sys.modules, "scipy.linalg", Loaded("scipy.linalg"))
    monkeypatch.delenv(WAIT, raising=False)
    assert _scipy() == ("cython_blas", "cython_lapack")
    assert WAIT not in os.environ
    assert seen["cython_blas"] == seen["cython_lapack"] == CYCLES
    monkeypatch.setenv(WAIT, "24")
    _scipy()
    assert os.environ[WAIT] == seen["cython_blas"] == "24"


def test_a_matrix_too_large_for_lapack_is_refused_before_it_exists():
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float64)
    n = LARGEST + 1
    with pytest.raises(kx.ResourceError, match=f"`potrf` counts .* {n} x {n} matrix .* Fix: "):
        jax.jit(value).lower(shape(n, n), shape(n))
    jax.jit(value).lower(shape(LARGEST, LARGEST), shape(LARGEST))
