"""Derivatives: every way of taking them agrees, in both precisions, at coincident points too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import kernax as kx

L, ALPHA, PERIOD = 0.7, 1.7, 0.9
SECOND = {
    "se": (kx.SEKernel(L), 1 / L**2),
    "matern32": (kx.Matern32Kernel([L]), 3 / L**2),
    "matern52": (kx.ARDKernel(kx.Matern52Kernel(), [L]), 5 / (3 * L**2)),
    "rational quadratic": (kx.RationalQuadraticKernel(L, ALPHA), 1 / L**2),
    "periodic": (kx.PeriodicKernel(L, PERIOD), 4 * np.pi**2 / (PERIOD**2 * L**2)),
}


# G01-G03, G05
@pytest.mark.parametrize("name", SECOND)
def test_derivatives_at_coincident_points_in_32_bits(name):
    k, expected = SECOND[name]
    k = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), k)
    x = jnp.asarray([0.4], jnp.float32)
    first, mixed = jax.jit(
        lambda k, x: (jax.grad(k.pairwise)(x, x), jax.jacfwd(jax.grad(k.pairwise), 1)(x, x))
    )(k, x)
    assert first.dtype == jnp.float32
    np.testing.assert_array_equal(first, 0.0)
    np.testing.assert_allclose(mixed, [[expected]], rtol=2e-3 / 100)


# G04
def test_length_scales_of_the_roughest_kernel_have_second_derivatives():
    X = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    f = lambda scales: jnp.sum(kx.ARDKernel(kx.Matern12Kernel(), scales).gram(X))
    at, both = np.array([0.7, 1.9]), jax.jit(lambda at: (jax.grad(f)(at), jax.hessian(f)(at)))
    hessian = both(at)[1]
    for j in range(2):
        up, down = (np.asarray(both(at + step * np.eye(2)[j])[0]) for step in (1e-6, -1e-6))
        np.testing.assert_allclose(hessian[j], (up - down) / 2e-6, rtol=1e-6, atol=1e-8)


# G10: jax.grad refuses whole numbers itself, before Kernax is called, with a TypeError.
def test_gradients_where_points_are_whole_numbers():
    k = kx.SEKernel(L)
    whole = k.gradient(np.arange(3))
    np.testing.assert_array_equal(whole, k.gradient(np.arange(3.0)))
    with pytest.raises(TypeError, match="int64"):
        jax.grad(k)(jnp.asarray([1]), jnp.asarray([2]))
    slope = jax.grad(lambda k: k(jnp.asarray([1]), jnp.asarray([2])))(k)
    np.testing.assert_allclose(slope.length_scale, np.exp(-0.5 / L**2) / L**3, rtol=1e-14)


# G14: n = 5 takes the plain road, n = 130 the one where distances are in memory.
@pytest.mark.parametrize("n", [5, 130])
def test_every_way_to_a_derivative_gives_the_same(n):
    rng = np.random.default_rng(0)
    X, weights = rng.normal(size=(n, 2)), jnp.asarray(rng.normal(size=(n, n)))
    X[3] = X[1]
    kernel = kx.Matern52Kernel([0.5, 1.2])
    flat, unravel = ravel_pytree(kernel)
    f = lambda values: jnp.sum(weights * unravel(values).gram(X))

    @jax.jit
    def everything(values):
        first = (jax.grad(f)(values), jax.jacfwd(f)(values), jax.vmap(jax.grad(f))(values[None])[0])
        second = (
            jax.hessian(f)(values),
            jax.jacrev(jax.jacfwd(f))(values),
            jax.jacrev(jax.jacrev(f))(values),
            jax.jacfwd(jax.jacfwd(f))(values),
        )
        return first, second

    for ways in everything(flat):
        for other in ways[1:]:
            scale = float(jnp.max(jnp.abs(ways[0])))
            np.testing.assert_allclose(other, ways[0], rtol=0, atol=1e-12 * scale)


# G14, in the points.
def test_every_way_to_a_second_derivative_in_the_points_gives_the_same():
    rng = np.random.default_rng(0)
    X, along = (jnp.asarray(rng.normal(size=(6, 2))) for _ in range(2))
    X = X.at[3].set(X[1])
    weights, k = jnp.asarray(rng.normal(size=(6, 6))), kx.Matern52Kernel(0.9)
    f = lambda X: jnp.sum(weights * k.gram(X))

    @jax.jit
    def products(X):
        return (
            jax.jvp(jax.grad(f), (X,), (along,))[1],
            jax.grad(lambda X: jax.jvp(f, (X,), (along,))[1])(X),
            jax.grad(lambda X: jnp.sum(jax.grad(f)(X) * along))(X),
        )

    forward, *others = products(X)
    for other in others:
        np.testing.assert_allclose(other, forward, rtol=1e-12, atol=1e-12)
