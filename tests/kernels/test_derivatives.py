"""Derivatives in the points and the hyperparameters, at coincident points above all."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, FAMILIES, SPINE

L, ALPHA, PERIOD = 0.7, 1.7, 0.9

# d2k/dx dy at x = y, by hand.
SECOND = {
    "se": (kx.SEKernel(L), 1 / L**2),
    "matern32": (kx.Matern32Kernel(L), 3 / L**2),
    "matern52": (kx.Matern52Kernel(L), 5 / (3 * L**2)),
    "rational quadratic": (kx.RationalQuadraticKernel(L, ALPHA), 1 / L**2),
    "periodic": (kx.PeriodicKernel(L, PERIOD), 4 * np.pi**2 / (PERIOD**2 * L**2)),
    "linear": (kx.LinearKernel(1.4, 0.3), 1.4),
    "constant": (kx.ConstantKernel(2.0), 0.0),
}
FLAT = {**{name: k for name, (k, _) in SECOND.items() if name != "linear"}}
FLAT["matern12"] = kx.Matern12Kernel(L)


@jax.jit
def at_coincidence(k, x):
    """Both gradients, and the mixed and repeated second derivatives, at y = x."""
    first = jax.grad(k.pairwise, argnums=(0, 1))(x, x)
    mixed = jax.jacfwd(jax.grad(k.pairwise, argnums=0), argnums=1)(x, x)
    return *first, mixed, jax.hessian(k.pairwise, argnums=0)(x, x)


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("x", [[0.0, 0.0], [0.4, -1.3]])
def test_first_derivatives_vanish_at_coincident_points(name, x):
    dx, dy, _, _ = at_coincidence(FLAT[name], jnp.asarray(x))
    np.testing.assert_array_equal(dx, [0.0, 0.0])
    np.testing.assert_array_equal(dy, [0.0, 0.0])


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_at_coincident_points_are_those_by_hand(name):
    k, expected = SECOND[name]
    _, _, mixed, repeated = at_coincidence(k, jnp.asarray([0.4, -1.3]))
    np.testing.assert_allclose(mixed, expected * np.eye(2), rtol=1e-12, atol=1e-12)
    if name != "linear":
        np.testing.assert_allclose(repeated, -expected * np.eye(2), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_exponential_kernel_is_finite_and_right_off_the_diagonal():
    k, (x, y) = kx.Matern12Kernel(L), (0.3, 1.1)
    slope = jax.jit(jax.grad(lambda x: k(x, y)))(x)
    np.testing.assert_allclose(slope, np.exp(-0.8 / L) / L, rtol=1e-12)


def test_through_a_call_the_derivatives_at_coincident_points_are_the_same():
    k = kx.Matern32Kernel(L)
    second = jax.jit(jax.grad(jax.grad(lambda x, y: k(x, y), 0), 1))(0.4, 0.4)
    np.testing.assert_allclose(second, 3 / L**2, rtol=1e-12)
    X = jnp.asarray([0.4, 0.4, 1.0])
    assert np.isfinite(jax.jit(jax.jacobian(k.gram))(X)).all()


def test_fourth_derivatives_of_matern52_at_coincident_points():
    # k = 1 - 5 d^2 / (6 l^2) + 25 d^4 / (24 l^4) + O(|d|^5): the fourth derivative is 25 / l^4.
    k = kx.Matern52Kernel(L)
    f = lambda x, y: k.pairwise(x[None], y[None])
    fourth = jax.jit(jax.grad(jax.grad(jax.grad(jax.grad(f, 0), 1), 0), 1))(0.4, 0.4)
    np.testing.assert_allclose(fourth, 25 / L**4, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in SPINE + FAMILIES if CASES[n].smooth])
def test_derivatives_in_the_points_match_differences(name):
    k = CASES[name].kernel
    both = jax.jit(lambda x, y: jax.value_and_grad(k.pairwise)(x, y))
    h = 1e-5
    for x, y in (([0.3, -0.8], [1.0, 0.2]), ([0.4, 0.7], [0.4, 0.7])):
        x, y = np.asarray(x), np.asarray(y)
        value, gradient = (lambda *at: both(*at)[0]), both(x, y)[1]
        for j in range(2):
            e = h * np.eye(2)[j]
            difference = (value(x + e, y) - value(x - e, y)) / (2 * h)
            scale = max(1.0, float(np.abs(value(x, x))))
            np.testing.assert_allclose(gradient[j], difference, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("cls", [kx.SEKernel, kx.Matern12Kernel, kx.Matern52Kernel])
def test_length_scales_train_on_a_gram_with_coincident_points(cls, points):
    @jax.jit
    @jax.value_and_grad
    def total(scales):
        return jnp.sum(kx.ARDKernel(cls(), scales).gram(jnp.asarray(points)))

    scales = np.asarray([0.7, 1.9])
    gradient = total(scales)[1]
    for j, e in enumerate(1e-6 * np.eye(2)):
        difference = (total(scales + e)[0] - total(scales - e)[0]) / 2e-6
        np.testing.assert_allclose(gradient[j], difference, rtol=1e-6)


def mp_gradient(profile, length_scale):
    with mpmath.workdps(50):
        return float(mpmath.diff(profile, mpmath.mpf(length_scale)))


@jax.jit
def length_scale_gradients(scale, x, y):
    classes = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel
    return [jax.grad(lambda s, cls=cls: cls(s)(x, y))(scale) for cls in classes]


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_length_scale_gradients_match_fifty_digits(scale):
    x, y = 0.0, 0.9 * scale
    d = mpmath.mpf(y)
    profiles = {
        kx.SEKernel: lambda s: mpmath.exp(-((d / s) ** 2) / 2),
        kx.Matern12Kernel: lambda s: mpmath.exp(-d / s),
        kx.Matern32Kernel: lambda s: (
            (1 + mpmath.sqrt(3) * d / s) * mpmath.exp(-mpmath.sqrt(3) * d / s)
        ),
    }
    slopes = length_scale_gradients(scale, x, y)
    for slope, profile in zip(slopes, profiles.values(), strict=True):
        np.testing.assert_allclose(slope, mp_gradient(profile, scale), rtol=1e-12)


def test_forward_and_reverse_mode_agree(points):
    k = CASES["mauna loa"].kernel
    X = jnp.asarray(points)
    weights = np.sin(np.arange(36.0)).reshape(6, 6)
    f = lambda values: jnp.sum(weights * k.replace(**values).gram(X))
    values = k.hyperparameters
    reverse = jax.jit(jax.grad(f))(values)
    tangent = {path: np.full(value.shape, 0.3) for path, value in values.items()}
    forward = jax.jit(lambda v, t: jax.jvp(f, (v,), (t,))[1])(values, tangent)
    total = sum(float(np.sum(0.3 * slope)) for slope in reverse.values())
    np.testing.assert_allclose(forward, total, rtol=1e-12)


def test_the_mirror_is_linear_with_plain_derivatives():
    from kernax.kernels._mirror import mirror

    def plain(K, diagonal):
        K = jnp.where(jnp.tri(len(K), dtype=bool), K, K.T)
        return jnp.where(jnp.eye(len(K), dtype=bool), diagonal[None, :], K)

    rng = np.random.default_rng(0)
    K, diagonal = jnp.asarray(rng.normal(size=(131, 131))), jnp.asarray(rng.normal(size=131))
    weights = jnp.asarray(rng.normal(size=(131, 131)))
    weighted = lambda m: lambda K, d: (jnp.sum(weights * (M := m(K, d))), M)
    slopes = lambda m: jax.jit(jax.value_and_grad(weighted(m), (0, 1), has_aux=True))
    ((_, M), fast), ((_, N), slow) = (slopes(m)(K, diagonal) for m in (mirror, plain))
    np.testing.assert_array_equal(M, N)
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_array_equal(fast[1], slow[1])
    corners = [(np.asarray(K)[:n, :n], np.asarray(diagonal)[:n]) for n in (0, 1, 2, 3)]
    found = jax.jit(lambda corners: [mirror(*parts) for parts in corners])(corners)
    for n, corner in enumerate(found):
        np.testing.assert_array_equal(corner, np.asarray(N)[:n, :n])


def test_a_gram_of_distances_in_memory_is_symmetric_and_right():
    X = np.random.default_rng(0).normal(size=(301, 2))
    X[7] = X[300]
    k = kx.SEKernel([0.6, 1.7])
    K = np.asarray(k.gram(X))
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(np.diag(K), 1.0)
    assert K[7, 300] == 1.0
    D = (X[:, None] - X) / np.array([0.6, 1.7])
    np.testing.assert_allclose(K, np.exp(-0.5 * (D**2).sum(-1)), rtol=0, atol=8e-16)
    batch = jax.vmap(k.gram)(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(batch[0], K, rtol=0, atol=4e-16)
