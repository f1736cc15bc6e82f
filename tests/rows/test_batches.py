"""Kernels as values: in batches, threads and comparisons."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.kernels import _derivatives

SE = kx.SEKernel


# B01: the hyperparameter that has the batch axis, and not one that has several values.
def test_the_error_names_what_is_batched():
    batch = kx.BatchKernel(kx.PeriodicKernel([1.0, 2.0], 1.0), 4, {"period": 0})
    with pytest.raises(kx.ShapeError, match=r"\(3, 4, 2\).*over \(4,\) \(`inner_kernel.period`"):
        batch.gram(np.zeros((3, 4, 2)))


# B06
@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_none_and_of_one_in_every_call(size):
    X = np.zeros((size, 4, 2))
    batch = kx.BatchKernel(SE(1.0), size, 0)
    assert batch.diagonal(X).shape == (size, 4)
    assert batch.gradient(X).shape == (size, 4, 4, 2)
    assert batch(X, np.zeros((3, 2))).shape == (size, 4, 3)
    assert batch.gram(X, mask=np.ones((size, 4), bool)).shape == (size, 4, 4)
    assert SE(1.0).gram(X).shape == (size, 4, 4)


# B05
@pytest.mark.optimised
def test_an_element_with_infinite_points_leaves_the_others_alone():
    X = np.random.default_rng(0).normal(size=(3, 4, 2))
    batch = kx.BatchKernel(SE(1.0), 3, 0)
    good, infinite = batch.gram(X), X.copy()
    infinite[1, 0] = np.inf
    with pytest.raises(kx.InputError, match="`X` holds 2 infinite"):
        batch.gram(infinite)
    traced = jax.jit(batch.gram)(infinite)
    np.testing.assert_array_equal(traced[jnp.array([0, 2])], good[jnp.array([0, 2])])
    assert np.isnan(traced[1, 0]).all()


# B07
def test_one_trace_for_numbers_of_any_type_and_for_updated_kernels():
    traces = []

    @jax.jit
    def evaluate(k):
        traces.append(k)
        return k(0.0, 1.0)

    for value in (1.0, 1, np.int32(1), np.float64(1), jnp.asarray(1.0), jnp.asarray(1)):
        evaluate(2.0 * SE(value))
    slope = jax.grad(lambda k: k(0.0, 1.0))(2.0 * SE(1.0))
    evaluate(jax.tree.map(lambda leaf, change: leaf - 0.1 * change, 2.0 * SE(1.0), slope))
    assert len(traces) == 1
    evaluate(np.float32(2.0) * SE(np.float32(1.0)))
    assert len(traces) == 2


# B10
def test_kernels_are_compared_by_value():
    k = SE(1.0)
    assert k.equals(SE(1.0)) is True
    for other in (SE(2.0), SE([1.0]), SE(np.float32(1.0)), k + 1.0, 3):
        assert k.equals(other) is False
    assert k.structure is SE(2.0).structure
    assert hash(k.structure) == hash(SE(2.0).structure)
    assert k.structure is not (k + 1.0).structure
    with pytest.raises(TypeError, match=r"not hashable. Fix: pass it .* as an argument, not as st"):
        hash(k)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda scale: SE(scale).equals(k))(1.0)


# B11
def test_fields_are_not_deleted():
    k = SE(1.0)
    for name in ("length_scale", "other"):
        with pytest.raises(AttributeError, match="cannot delete field"):
            delattr(k, name)
    assert k(0.0, 0.0) == 1.0


# B11
def test_a_kernel_keeps_nothing_of_the_array_it_was_made_of():
    scales = np.array([1.0, 2.0])
    k = SE(scales)
    scales[0] = 100.0
    np.testing.assert_array_equal(k.length_scale, [1.0, 2.0])


# B13
def test_one_kernel_in_four_threads():
    k = 2.0 * SE(0.7) + kx.ActiveDimsKernel(kx.Matern32Kernel(1.3), [0])
    sets = [np.random.default_rng(i).normal(size=(4 + i % 3, 2)) for i in range(12)]
    one_by_one = [np.asarray((2.0 * SE(0.7) + k.right_kernel).gram(X)) for X in sets]

    def work(i):
        # One kernel for all, flattened by whoever comes first, and one of each thread's own.
        own = k.replace(value=2.0 + i)
        same = kx.SEKernel(0.7).structure is k.left_kernel.right_kernel.structure
        return k.gram(sets[i]), own.diagonal(sets[i]), same

    for name in ("_flat", "_levels"):
        assert not hasattr(k, name) or object.__delattr__(k, name) is None
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(12)))
    for i, (K, diagonal, same) in enumerate(results):
        np.testing.assert_array_equal(K, one_by_one[i])
        np.testing.assert_array_equal(diagonal, np.full(len(sets[i]), 3.0 + i))
        assert same


# B08
def test_gradients_compile_nothing_for_new_values():
    X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    kernel = lambda i: SE(1.0 + i) * kx.PeriodicKernel(1.0, 2.0 + i)
    kernel(0).gradient(X)
    before = _derivatives._derivatives._cache_size()
    for i in range(1, 4):
        kernel(i).gradient(X)
    assert _derivatives._derivatives._cache_size() == before
