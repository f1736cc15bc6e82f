"""Preconditioned conjugate gradients and log determinants, against dense linear algebra."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.matrixfree import conjugate_gradients, log_determinant, preconditioner

RNG = np.random.default_rng(4)
X, B = RNG.normal(size=(150, 2)), RNG.normal(size=(150, 3))
KERNEL, NOISE = kx.Matern32Kernel(0.8), 0.05
OPERATOR = kx.KernelOperator(KERNEL, X, NOISE)
K = np.asarray(KERNEL.gram(X)) + NOISE * np.eye(150)
KEY = jax.random.key(0)


@partial(jax.jit, static_argnames=("rank", "max_steps"))
def solved(operator, B, rank, start=None, tolerance=1e-10, max_steps=1000):
    P = preconditioner(operator, rank, KEY)
    options = {"tolerance": tolerance, "max_steps": max_steps}
    return conjugate_gradients(operator, B, P, start=start, **options)


@pytest.mark.parametrize("rank", [0, 30])
def test_solutions(rank):
    found = solved(OPERATOR, jnp.asarray(B), rank)
    np.testing.assert_allclose(found.values, np.linalg.solve(K, B), rtol=0, atol=1e-8)
    assert (np.asarray(found.residual) <= 1e-10).all()
    true = np.linalg.norm(B - K @ np.asarray(found.values), axis=0) / np.linalg.norm(B, axis=0)
    np.testing.assert_allclose(found.residual, true, rtol=0.05)
    assert bool(found.converged(1e-10))
    assert not bool(found.indefinite)


def test_the_preconditioner_saves_steps_and_is_what_it_says():
    plain, better = (int(solved(OPERATOR, jnp.asarray(B), rank).steps) for rank in (0, 60))
    assert 3 * better < plain

    @jax.jit
    def looks(operator):
        P = preconditioner(operator, 60, KEY)
        return P.root, P.B, P.solve(jnp.asarray(B)), P.log_determinant(), P.sample(KEY, 20_000)

    root, low, solutions, log_det, draws = map(np.asarray, looks(OPERATOR))
    dense = np.diag(root) @ (np.eye(150) + low @ low.T) @ np.diag(root)
    np.testing.assert_allclose(solutions, np.linalg.solve(dense, B), rtol=1e-9)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(dense)[1], rtol=1e-10)
    np.testing.assert_allclose(np.cov(draws), dense, atol=0.06)
    # K less its low rank is what the random pivots left over.
    rest = K - dense
    assert np.linalg.eigvalsh(rest).min() > -1e-8
    assert np.trace(rest) < 0.2 * np.trace(K)


def test_warm_start_and_budget():
    values = np.linalg.solve(K, B)
    near = solved(OPERATOR, jnp.asarray(B), 30, jnp.asarray(values + 1e-9))
    cold = solved(OPERATOR, jnp.asarray(B), 30)
    assert int(near.steps) < 0.5 * int(cold.steps)
    short = solved(OPERATOR, jnp.asarray(B), 0, max_steps=5)
    assert int(short.steps) == 6  # the true residual is a product too
    assert not bool(short.converged(1e-10))
    true = np.linalg.norm(B - K @ np.asarray(short.values), axis=0) / np.linalg.norm(B, axis=0)
    np.testing.assert_allclose(short.residual, true, rtol=1e-10)


def test_negative_curvature_is_found():
    operator = kx.KernelOperator(kx.SEKernel(0.5) - 0.9 * kx.SEKernel(0.1), X, 0.0)
    assert bool(solved(operator, jnp.asarray(B), 0).indefinite)


def test_results_do_not_depend_on_tiles():
    tiles = kx.KernelOperator(KERNEL, X, NOISE, pairs=700)
    found, whole = (solved(o, jnp.asarray(B), 30).values for o in (tiles, OPERATOR))
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-9)


def test_padding_changes_nothing():
    padded = np.concatenate([X, np.full((7, 2), np.nan)])
    sides = np.concatenate([B, np.zeros((7, 3))])
    found = solved(kx.KernelOperator(KERNEL, padded, NOISE), jnp.asarray(sides), 30).values
    np.testing.assert_allclose(found[:150], np.linalg.solve(K, B), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(found[150:], 0.0)


@pytest.mark.parametrize("rank", [0, 30])
def test_log_determinant(rank):
    options = {"probes": 64, "steps": 40}
    found = jax.jit(
        lambda operator: log_determinant(
            operator, preconditioner(operator, rank, KEY), KEY, **options
        )
    )(OPERATOR)
    want = np.linalg.slogdet(K)[1]
    assert abs(float(found.value) - want) < 3 * float(found.error)
    assert float(found.error) < 0.03 * abs(want)


def test_single_precision():
    with jax.enable_x64(False):
        operator = kx.KernelOperator(KERNEL, X.astype(np.float32), np.float32(NOISE))
        found = solved(operator, jnp.asarray(B, jnp.float32), 30, tolerance=1e-4)
        assert found.values.dtype == jnp.float32
        assert bool(found.converged(1e-4))
    np.testing.assert_allclose(found.values, np.linalg.solve(K, B), rtol=0, atol=2e-2)
