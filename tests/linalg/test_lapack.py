"""The factorisations on every route: residuals, derivatives, batches, failures, and no waiting."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx
from kernax.linalg import cholesky, log_density
from kernax.linalg._lapack import LARGEST, factorise, routines
from kernax.linalg._primitive import SMALL, density, factor, inverse
from tests.linalg.test_dense import EPS, ratio, with_condition

ROUTES = ("lapack", "small", "library")
CALL = "xla_ffi_python_cpu_callback"


def amounts(A):
    """The jitter that the callers in the package would try."""
    unit = A.shape[-1] * np.finfo(A.dtype).eps
    steps = np.minimum(np.array([1, 10, 100]) * unit, max(np.finfo(A.dtype).eps ** 0.5, 10 * unit))
    scale = np.diagonal(A, axis1=-2, axis2=-1).mean(axis=-1)
    return jnp.asarray((steps * scale[..., None]).astype(A.dtype))


def value(K, y, route="auto"):
    one = jnp.ones((), K.dtype)
    return log_density(K, y, jnp.asarray(len(K), K.dtype), one, route)[0]


def plain(K, y):
    """The same by JAX alone, for its derivatives."""
    L = jnp.linalg.cholesky(K)
    z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return (
        -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diagonal(L))) - 0.5 * len(K) * np.log(2 * np.pi)
    )


def pair(n, seed=0, size=None, dtype=float):
    """Well-conditioned matrices and vectors, one or ``size`` of them."""
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(size or 1, n, n))
    K = (np.einsum("bij,bkj->bik", R, R) + n * np.eye(n)).astype(dtype)
    y = rng.normal(size=(size or 1, n)).astype(dtype)
    K = np.tril(K) + np.swapaxes(np.tril(K, -1), 1, 2)
    return (jnp.asarray(K), jnp.asarray(y)) if size else (jnp.asarray(K[0]), jnp.asarray(y[0]))


def hard(n, dtype):
    """LAPACK's own matrices: diagonal, conditions from 2 to near 1 / eps, rows of zeros."""
    eps = np.finfo(dtype).eps
    found = [np.diag(np.arange(1, n + 1).astype(dtype))]
    found += [with_condition(n, c, dtype) for c in (2.0, np.sqrt(0.1 / eps), 0.1 / eps)]
    for zeroed in {0, n // 2, n - 1}:
        A = with_condition(n, 2.0, dtype)
        A[zeroed], A[:, zeroed] = 0.0, 0.0
        found.append(A)
    return np.stack(found)


# --- numbers -----------------------------------------------------------------------------------


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
    half, square, c, a, P = map(
        np.asarray, run(jnp.asarray(A), jnp.asarray(ys).swapaxes(0, 1), amounts(A))
    )
    assert {x.dtype for x in (half, square, c, a, P)} == {np.dtype(dtype)}
    np.testing.assert_array_equal(P, P.swapaxes(1, 2))
    zero_rows = n > 1 or A.any(axis=(1, 2))
    assert ((c > 0) == ~A.any(axis=2).all(axis=1)).all() and np.all(zero_rows | (n == 1))
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


@pytest.mark.parametrize("n", [5, 40, 300])
def test_all_routes_give_the_same(n):
    K, y = pair(n)
    results = [jax.jit(partial(inverse, route=r))(K, y, amounts(np.asarray(K))) for r in ROUTES]
    lapack, small, library = results if n <= 40 else (results[0], results[2], results[2])
    for one, two, three in zip(lapack, small, library, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(three, one, rtol=1e-12, atol=1e-14)


def test_the_rounding_of_small_scales_and_large():
    """Near the ends of the range: nothing under- or overflows on the way."""
    K, y = pair(5)
    for route in ROUTES:
        run = jax.jit(partial(inverse, route=route))
        half, square, c, a, P = run(K, y, jnp.zeros(3))
        for e in (-1000, 1000):
            s = 2.0**e
            other = run(s * K, y, jnp.zeros(3))
            np.testing.assert_allclose(other[0] - half, 2.5 * e * np.log(2), rtol=1e-13)
            np.testing.assert_allclose(s * other[1], square, rtol=1e-14)
            np.testing.assert_allclose(s * other[4], P, rtol=1e-13)


# --- derivatives -------------------------------------------------------------------------------


def along(function, n=3):
    """The function of three numbers that move K and y."""
    K, y = pair(n)
    K1, K2 = (0.1 * (D + D.T) for D in np.random.default_rng(1).normal(size=(2, n, n)))
    return lambda t: function(K + t[0] * K1 + t[1] * K2, y * (1.0 + t[2]) + t[2] ** 2)


@pytest.mark.parametrize("route", ["lapack", "small"])
def test_derivatives_to_third_order_and_batches_of_them(route):
    t = jnp.array([0.3, -0.2, 0.4])
    ours, theirs = along(partial(value, route=route)), along(plain)
    forward_over_reverse = lambda f: jax.jacfwd(jax.jacrev(f))
    thrice = lambda f: jax.jacfwd(jax.jacrev(jax.jacfwd(f)))
    for derivative in (jax.grad, jax.jacfwd, forward_over_reverse, jax.hessian, thrice):
        expected = jax.jit(derivative(theirs))(t)
        np.testing.assert_allclose(jax.jit(derivative(ours))(t), expected, rtol=1e-11, atol=1e-12)
    points = jnp.stack([t, 0 * t, -t])
    expected = jax.vmap(jax.hessian(theirs))(points)
    found = jax.jit(jax.vmap(jax.hessian(ours)))(points)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    # A batch of starts, and the gradient of a sum over it.
    total = lambda f: lambda p: jnp.sum(jax.vmap(f)(p) ** 2)
    np.testing.assert_allclose(
        jax.grad(total(ours))(points), jax.grad(total(theirs))(points), rtol=1e-11, atol=1e-12
    )


def test_reverse_mode_is_the_transpose_of_forward_mode():
    K, y = pair(4)
    rng = np.random.default_rng(3)
    D = rng.normal(size=(4, 4))
    tangents = jnp.asarray(D + D.T), jnp.asarray(rng.normal(size=4))
    _, forward = jax.jvp(value, (K, y), tangents)
    W, slope = jax.grad(value, (0, 1))(K, y)
    np.testing.assert_array_equal(W, W.T)
    backward = jnp.sum(W * tangents[0]) + jnp.sum(slope * tangents[1])
    np.testing.assert_allclose(forward, backward, rtol=1e-13)


def test_several_columns_are_their_sum():
    K, Y = pair(4)[0], jnp.asarray(np.random.default_rng(4).normal(size=(4, 3)))
    both = lambda f: jax.jit(jax.value_and_grad(f, (0, 1)))
    together = both(value)(K, Y)
    apart = both(lambda K, Y: sum(value(K, Y[:, j]) for j in range(3)))(K, Y)
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    hessian = lambda f: jax.jit(jax.hessian(f, 1))(K, Y)
    np.testing.assert_allclose(
        hessian(value), hessian(lambda K, Y: sum(value(K, Y[:, j]) for j in range(3))), atol=1e-15
    )


def calls(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text().count(CALL)


def test_each_derivative_is_one_call_to_the_host():
    K, y = pair(40)
    Ks, ys = jnp.stack([K, K]), jnp.stack([y, y])
    vectors = jnp.ones((40, 2))
    assert calls(value, K, y) == 1
    assert "potri" not in str(jax.make_jaxpr(value)(K, y))
    for function in (jax.value_and_grad(value), jax.grad(value, (0, 1)), jax.jacfwd(value, 1)):
        assert calls(function, K, y) == 1
    assert calls(jax.value_and_grad(lambda Y: value(K, Y)), vectors) == 1
    product = lambda K, y: jax.jvp(jax.grad(value), (K, y), (K, y))
    assert calls(product, K, y) == 1
    assert calls(jax.vmap(jax.value_and_grad(value)), Ks, ys) == 1
    assert calls(jax.vmap(jax.vmap(value)), Ks[None], ys[None]) == 1
    # The value alone asks for no inverse; small matrices ask for nothing.
    assert "wanted=density" in str(jax.make_jaxpr(value)(K, y))
    assert "wanted=inverse" not in str(jax.make_jaxpr(value)(K, y))
    assert calls(value, *pair(SMALL)) == 0


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "dtype"), [(40, float), (7, float), (7, np.float32), (SMALL, np.float32)]
)
def test_a_batch_is_a_loop_to_the_bit(n, dtype):
    """Whatever its size, and with an element that fails: the others do not notice."""
    Ks, ys = pair(n, size=7, dtype=dtype)
    Ks = Ks.at[4].set(-Ks[4])
    both = jax.value_and_grad(value, (0, 1))
    together = jax.jit(jax.vmap(both))(Ks, ys)
    one = jax.jit(both)
    apart = [one(K, y) for K, y in zip(Ks, ys, strict=True)]
    for whole, *parts in zip(*map(jax.tree.leaves, (together, *apart)), strict=True):
        np.testing.assert_array_equal(whole, jnp.stack(parts))
        assert (np.isnan(whole).reshape(7, -1).all(axis=1) == (np.arange(7) == 4)).all()
    three = jax.jit(jax.vmap(both))(Ks[:3], ys[:3])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), three, together)


def test_pieces_of_a_large_batch_of_small_matrices(monkeypatch):
    monkeypatch.setattr("kernax.linalg._portable.AT_ONCE", 200)
    Ks, ys = pair(3, size=50)
    assert 50 * 3 * 7 > 5 * 200
    pieces = jax.vmap(partial(inverse, route="small"))(Ks, ys, jnp.zeros((50, 3)))
    for i in (0, 28, 29, 49):
        one = inverse(Ks[i], ys[i], jnp.zeros(3), "lapack")
        for whole, part in zip(pieces, one, strict=True):
            np.testing.assert_allclose(whole[i], part, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("route", ROUTES)
def test_nested_batches_and_shared_operands(route):
    """(2, 3) batches in which the matrix, y, or the jitter to try lacks one axis or both."""
    Ks, ys = pair(4, size=6)
    Ks, ys = Ks.reshape(2, 3, 4, 4), ys.reshape(2, 3, 4)
    run = partial(inverse, route=route)
    tries = jnp.zeros((2, 3, 3))
    every = lambda axes, *x: jax.vmap(jax.vmap(run, axes[0]), axes[1])(*x)
    cases = [
        (((0, 0, 0), (0, 0, 0)), (Ks, ys, tries), lambda i, j: (Ks[i, j], ys[i, j])),
        (((None, 0, None), (0, 0, 0)), (Ks[:, 0], ys, tries[:, 0]), lambda i, j: (Ks[i, 0], ys[i, j])),
        (((0, 0, None), (None, 0, None)), (Ks[0], ys, tries[0, 0]), lambda i, j: (Ks[0, j], ys[i, j])),
        (((None, 0, None), (None, 0, None)), (Ks[0, 0], ys, tries[0, 0]), lambda i, j: (Ks[0, 0], ys[i, j])),
        (((0, None, None), (0, None, None)), (Ks, ys[0, 0], tries[0, 0]), lambda i, j: (Ks[i, j], ys[0, 0])),
        (((None, None, 0), (None, None, 0)), (Ks[0, 0], ys[0, 0], tries), lambda i, j: (Ks[0, 0], ys[0, 0])),
        (((1, 0, None), (None, 0, None)), (Ks[0].swapaxes(0, 1), ys, tries[0, 0]), lambda i, j: (Ks[0, j], ys[i, j])),
    ]  # fmt: skip
    for axes, operands, element in cases:
        found = jax.jit(partial(every, axes))(*operands)
        assert [x.shape for x in found] == [(2, 3)] * 3 + [(2, 3, 4), (2, 3, 4, 4)]
        for i, j in ((0, 0), (0, 2), (1, 1)):
            K, y = element(i, j)
            a = np.linalg.solve(K, y)
            np.testing.assert_allclose(found[1][i, j], y @ a, rtol=1e-13)
            np.testing.assert_allclose(found[3][i, j], a, rtol=1e-12)
            np.testing.assert_allclose(found[4][i, j], np.linalg.inv(K), rtol=1e-12, atol=1e-15)


def test_a_matrix_shared_by_many_vectors_is_factorised_once():
    Ks, ys = pair(40, size=5)
    jaxpr = jax.make_jaxpr(jax.vmap(jax.value_and_grad(value), (None, 0)))(Ks[0], ys)
    (found,) = [e for e in jaxpr.eqns if e.primitive.name == "kernax_factorise"]
    assert [x.aval.shape for x in found.invars] == [(1, 40, 40), (1, 3), (5, 40)]
    assert [x.aval.shape for x in found.outvars][-2:] == [(5, 40), (1, 40, 40)]


@pytest.mark.parametrize("n", [0, 3, 40])
def test_empty_batches_and_empty_matrices(n):
    both = jax.jit(jax.vmap(jax.value_and_grad(value)))
    found, W = both(jnp.zeros((0, n, n)), jnp.zeros((0, n)))
    assert (found.shape, W.shape) == ((0,), (0, n, n))
    found, W = jax.vmap(jax.value_and_grad(value), (None, 0))(jnp.eye(n), jnp.zeros((0, n)))
    assert (found.shape, W.shape) == ((0,), (0, n, n))
    if n == 0:
        found, W = both(jnp.zeros((2, 0, 0)), jnp.zeros((2, 0)))
        assert (found.tolist(), W.shape) == ([0.0, 0.0], (2, 0, 0))
        assert [x.shape for x in factor(jnp.zeros((0, 0)), jnp.zeros(3))] == [(0, 0), ()]
    assert value(jnp.eye(n), jnp.zeros((n, 0))) == 0.0


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
    tries = jnp.broadcast_to(jnp.asarray([unit, 10 * unit, 100 * unit], dtype), (len(A), 3))
    step = np.array([0, 1, 1, 10, 100, 100, 100, 0, 0, 0, 0])
    operands = jnp.asarray(A), jnp.asarray(ys), tries
    half, square, c, a, P = jax.jit(jax.vmap(partial(inverse, route=route)))(*operands)
    np.testing.assert_allclose(c, step * unit, rtol=4 * eps)
    good = np.arange(len(A)) < 6
    for x in (half, square, a, P):
        found = np.asarray(x).reshape(len(A), -1)
        assert np.isfinite(found[good]).all()
        assert np.isnan(found[~good]).all()
    exact = 1 / (np.diagonal(A, axis1=1, axis2=2) + np.asarray(c)[:, None])[good]
    np.testing.assert_allclose(np.diagonal(P, axis1=1, axis2=2)[good], exact, rtol=8 * eps)
    values = jax.jit(jax.vmap(partial(density, route=route)))(*operands)
    for one, other in zip(values, (half, square, c), strict=True):
        np.testing.assert_allclose(one, other, rtol=8 * eps)
    L, again = jax.jit(jax.vmap(partial(factor, route=route)))(operands[0], tries)
    np.testing.assert_array_equal(again, c)
    assert (np.isnan(np.asarray(L)[:, -1, -1]) == ~good).all()
    np.testing.assert_allclose(
        np.asarray(L)[good] ** 2, (A + np.asarray(c)[:, None, None] * np.eye(n, dtype=dtype))[good],
        rtol=8 * eps,
    )  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_nan_and_overflow_in_y(route):
    K, y = pair(3)
    both = jax.value_and_grad(partial(value, route=route), (0, 1))
    for bad in (np.nan, np.inf, 1e200):
        found, (W, _) = both(K, y.at[1].set(bad))
        assert np.isnan(found)
    half, square, c, a, P = inverse(K, y.at[1].set(np.nan), jnp.ones(3), route)
    assert (np.isnan(square), np.isnan(a).all(), c) == (True, True, 0.0)
    np.testing.assert_allclose(P, np.linalg.inv(K), rtol=1e-13)


def test_the_ladder_of_a_dense_matrix_starts_from_what_was_given():
    """A failed attempt overwrites one triangle; the next one is made of the other."""
    x = np.linspace(0, 1, 40)
    K = jnp.asarray(np.exp(-0.5 * (x[:, None] - x) ** 2))
    L, c = factor(K, jnp.asarray([0.0, 1e-30, 1e-10]), "lapack")
    assert c == 1e-10
    assert ratio(np.asarray(L), np.asarray(K) + 1e-10 * np.eye(40)) <= 30


@pytest.mark.parametrize("n", [5, 40])
def test_inputs_are_never_overwritten(n):
    K, y = (np.array(x) for x in pair(n))
    before = K.copy(), y.copy()
    on_device = jnp.asarray(K), jnp.asarray(y)
    for argument in ((K, y), on_device):
        jax.jit(jax.value_and_grad(value))(*argument)
        cholesky(jnp.asarray(argument[0]), jnp.asarray(1.0 * n), jnp.ones(()), "lapack")
        for one, other in zip(argument, before, strict=True):
            np.testing.assert_array_equal(one, other)
    # Views that JAX might lend in place of copies are not written to either.
    lent = [np.broadcast_to(x, (1, *x.shape)) for x in (K, np.zeros(3), y[None])]
    factorise(routines("d"), "inverse", *lent)
    np.testing.assert_array_equal(K, before[0])


def test_a_matrix_too_large_for_lapack_is_refused_before_it_exists():
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float64)
    n = LARGEST + 1
    with pytest.raises(kx.ResourceError, match=f"`potrf` counts .* {n} x {n} matrix .* Fix: "):
        jax.jit(value).lower(shape(n, n), shape(n))
    jax.jit(value).lower(shape(LARGEST, LARGEST), shape(LARGEST))


# --- places ------------------------------------------------------------------------------------


def test_inside_loops_branches_and_checkpoints():
    K, y = pair(40)
    slope = jax.jit(jax.grad(value, 1))(K, y)

    def descend(y, _):
        y = y + 0.1 * jax.grad(value, 1)(K, y)
        return y, value(K, y)

    end, values = jax.jit(lambda y: jax.lax.scan(descend, y, None, length=3))(y)
    np.testing.assert_allclose(values[-1], plain(K, end), rtol=1e-13)
    np.testing.assert_allclose(end, y + 0.3 * slope, atol=0.1)
    steps = jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, descend(s[1], 0)[0]), (0, y)
    )
    np.testing.assert_array_equal(steps[1], end)
    np.testing.assert_array_equal(jax.grad(jax.checkpoint(value), 1)(K, y), slope)
    either = jax.jit(lambda c: jax.lax.cond(c, lambda: value(K, y), lambda: 0.0))
    assert either(True) == value(K, y)
    several = jax.jit(lambda Ks: sum(jax.value_and_grad(value)(K, y)[0] for K in Ks))
    Ks = [K * s for s in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    np.testing.assert_allclose(several(Ks), sum(plain(K, y) for K in Ks), rtol=1e-12)


def test_threads_may_share_a_compiled_function():
    both = jax.jit(jax.value_and_grad(value))
    Ks, ys = pair(60, size=4)
    expected = [both(K, y) for K, y in zip(Ks, ys, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: both(Ks[i % 4], ys[i % 4]), range(40)))
    for i, (one, W) in enumerate(found):
        assert one == expected[i % 4][0]
        np.testing.assert_array_equal(W, expected[i % 4][1])


@pytest.mark.parametrize("platforms", [("cuda",), ("cpu",), ("cpu", "tpu")])
def test_programs_for_elsewhere_stay_in_jax(platforms):
    K, y = pair(40)
    exported = jax.export.export(jax.jit(jax.value_and_grad(value)), platforms=platforms)(K, y)
    assert CALL not in exported.mlir_module()
    if platforms == ("cpu",):
        np.testing.assert_allclose(exported.call(K, y)[0], value(K, y), rtol=1e-13)


SCRIPT = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from kernax.linalg import log_density
from jax.sharding import Mesh, PartitionSpec as P

def value(K, y):
    return log_density(K, y, jnp.asarray(len(K), K.dtype), jnp.ones((), K.dtype))[0]

R = np.random.default_rng(0).normal(size=(6, 50, 50)).astype(np.float32)
Ks = jnp.asarray(np.einsum("bij,bkj->bik", R, R) + 50 * np.eye(50, dtype=np.float32))
ys = jnp.asarray(R[:, 0])
both = jax.value_and_grad(value)
expected = jax.vmap(both)(Ks, ys)
same = lambda found: jax.tree.map(np.testing.assert_array_equal, found, expected)
apart = jax.jit(lambda Ks, ys: [both(K, y) for K, y in zip(Ks, ys)])
for _ in range(20):
    found = apart(list(Ks), list(ys))
same(jax.tree.map(lambda *x: jnp.stack(x), *found))
mesh = Mesh(np.array(jax.devices()), ("i",))
for check in (True, False):
    over = partial(jax.shard_map, mesh=mesh, check_vma=check)
    spread = over(jax.vmap(both), in_specs=(P("i"), P("i")), out_specs=P("i"))
    for _ in range(20):
        found = jax.jit(spread)(Ks, ys)
    same(found)
    # A matrix that the devices share, with the gradient of the sum over both.
    part = lambda K, ys: jax.lax.psum(jnp.sum(jax.vmap(value, (None, 0))(K, ys)), "i")
    total = over(part, in_specs=(P(), P("i")), out_specs=P())
    slope = jax.jit(jax.grad(total))(Ks[0], ys)
    alone = jax.grad(lambda K: jnp.sum(jax.vmap(value, (None, 0))(K, ys)))(Ks[0])
    np.testing.assert_allclose(slope, alone, rtol=1e-5, atol=1e-7)
small = over(jax.vmap(both), in_specs=(P("i"), P("i")), out_specs=P("i"))(Ks[:, :5, :5], ys[:, :5])
assert np.isfinite(small[0]).all()
with jax.enable_x64(True):
    found = jax.jit(both)(jnp.asarray(np.float64(Ks[0])), jnp.asarray(np.float64(ys[0])))
    assert found[0].dtype == found[1].dtype == jnp.float64
print("done")
"""


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs `taskset`")
def test_nothing_waits_for_itself_on_one_core():
    """Six likelihoods in one program, and two devices: a callback that asked JAX would hang."""
    run = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", SCRIPT],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr
