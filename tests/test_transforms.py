"""Maps of points: their values, their derivatives, and what they refuse."""

import pickle

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx

T = kx.transforms
image = jax.jit(lambda transform, x: transform(x))
EPS = np.finfo(float).eps


class Stretch(T.Transform):
    """A user's transform: one field, one formula."""

    power: Array = kx.positive(1.0)

    def __call__(self, x):
        return jnp.sign(x) * jnp.abs(x) ** self.power


def test_a_linear_map():
    matrix, x = np.random.default_rng(0).normal(size=(3, 2)), jnp.asarray([0.4, -1.2])
    np.testing.assert_allclose(T.Linear(matrix)(x), matrix @ np.asarray(x), rtol=4 * EPS)
    for wrong in (np.ones((2, 3)), np.ones(2), 1.0):
        shape = str(np.shape(wrong)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(kx.ShapeError, match=f"`matrix` has shape {shape}, but the .* dim.* 2"):
            T.Linear(wrong)(x)


def test_a_rotation_changes_nothing_for_a_kernel_of_the_distance():
    X = np.random.default_rng(0).normal(size=(5, 2))
    turn = T.Linear([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    both = jax.jit(lambda k, turn: (kx.WarpedKernel(k, turn).gram(X), k.gram(X)))
    for k in (kx.SEKernel(0.7), kx.Matern52Kernel(0.7)):
        np.testing.assert_allclose(*both(k, turn), rtol=1e-13)


def test_a_circle_makes_the_periodic_kernel():
    X = np.random.default_rng(0).normal(size=(7, 2)) * 5

    @jax.jit
    def slopes(*kernels):
        total = lambda k: jnp.sum(jnp.sin(jnp.arange(49.0)).reshape(7, 7) * k.gram(X))
        return [(k.gram(X), jax.grad(total)(k)) for k in kernels]

    for length_scale, period in ((0.8, 1.3), (2.0, [0.7, 3.1])):
        periodic = kx.PeriodicKernel(length_scale, period)
        warped = kx.WarpedKernel(kx.SEKernel(length_scale), T.Periodic(period))
        names = {"length_scale": "inner_kernel.length_scale", "period": "warp.period"}
        (K, a), (L, b) = slopes(periodic, warped)
        np.testing.assert_allclose(L, K, rtol=0, atol=18 * EPS)
        for name, path in names.items():
            a_, b_ = a.hyperparameters[name], b.hyperparameters[path]
            np.testing.assert_allclose(a_, b_, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_the_origin_no_digit_of_the_phase_is_lost(dtype):
    # At the point and the period as rounded, in fifty digits.
    eps = np.finfo(dtype).eps
    for x, period in ((1e7, 1.0), (1e7 + 3, 0.9), (-12345.678, 0.1), (3e15, 2.7), (1e-30, 5.0)):
        x, period = dtype(x), dtype(period)
        value = image(T.Periodic(period), jnp.asarray([x]))
        assert value.dtype == dtype
        with mpmath.workdps(50):
            angle = 2 * mpmath.pi * mpmath.mpf(float(x)) / mpmath.mpf(float(period))
            exact = [float(mpmath.cos(angle)), float(mpmath.sin(angle))]
        np.testing.assert_allclose(value, exact, rtol=0, atol=4 * eps)
    # Angles beyond half a turn would have twice the error.
    x, period = np.random.default_rng(0).uniform(-0.9, 0.9, 100).astype(dtype), dtype(0.9)
    value = jax.vmap(T.Periodic(period))(jnp.asarray(x)[:, None])
    with mpmath.workdps(50):
        angles = [2 * mpmath.pi * mpmath.mpf(float(z)) / mpmath.mpf(float(period)) for z in x]
        exact = [[float(f(angle)) for f in (mpmath.cos, mpmath.sin)] for angle in angles]
    np.testing.assert_allclose(value, exact, rtol=0, atol=2.5 * eps)
    k = kx.WarpedKernel(kx.SEKernel(dtype(1)), T.Periodic(dtype(1)))
    np.testing.assert_allclose(k.gram(np.array([0, 1e7], dtype)), np.ones((2, 2)), atol=17 * eps)


def test_derivatives_on_the_circle():
    x, period, h = jnp.asarray([5.3, -2.2]), jnp.asarray([0.9, 2.1]), 1e-6
    value = image(T.Periodic(period), x)
    of = lambda period, x: T.Periodic(period)(x)
    dp, dx = jax.jit(jax.jacobian(of, (0, 1)))(period, x)
    speed = 2 * np.pi / np.asarray(period)
    cosines, sines = np.split(np.asarray(value), 2)
    by_hand = np.concatenate([np.diag(-sines * speed), np.diag(cosines * speed)])
    np.testing.assert_allclose(dx, by_hand, rtol=1e-12, atol=1e-12)
    for j in range(2):
        e = h * np.eye(2)[j]
        up, down = (np.asarray(image(T.Periodic(period + s * e), x)) for s in (1, -1))
        difference = (up - down) / (2 * h)
        np.testing.assert_allclose(dp[:, j], difference, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(dp, -dx * np.asarray(x / period)[None, :], rtol=1e-11, atol=1e-11)


def test_a_period_for_each_dimension_or_one_for_all():
    with pytest.raises(kx.ShapeError, match=r"`period` has shape \(3,\), but the points have dim"):
        T.Periodic([1.0, 2.0, 3.0])(jnp.ones(2))
    with pytest.raises(kx.ParameterError, match=r"Periodic: `period` is 0\.0, expected"):
        T.Periodic(0.0)


def test_an_exponential_of_a_linear_map():
    x, rows = jnp.asarray([0.4, -1.2]), np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert T.LogLinear()(x) == 1.0
    np.testing.assert_allclose(T.LogLinear(0.5, 0.1)(x), np.exp(-0.4 + 0.1), rtol=4 * EPS)
    np.testing.assert_allclose(T.LogLinear([1.0, 2.0])(x), np.exp(-2.0), rtol=4 * EPS)
    bias = np.array([0.1, 0.2, 0.3])
    expected = np.exp(rows @ np.asarray(x) + bias)
    np.testing.assert_allclose(T.LogLinear(rows, bias)(x), expected, rtol=8 * EPS)
    assert T.LogLinear(rows, 0.1)(x).shape == (3,)


@pytest.mark.parametrize(
    ("weights", "bias", "text"),
    [
        ([1.0, 2.0, 3.0], 0.0, r"`weights` has shape \(3,\), but the points have dimension 2"),
        (np.ones((2, 3)), 0.0, r"`weights` has shape \(2, 3\), but the points have dimension 2"),
        (np.ones((1, 2, 2)), 0.0, r"`weights` has shape \(1, 2, 2\)"),
        ([1.0, 2.0], [1.0, 2.0], r"`bias` has shape \(2,\), but `weights` has shape \(2,\)"),
        (np.ones((3, 2)), [1.0, 2.0], r"`bias` has shape \(2,\), but `weights` has shape \(3, 2\)"),
    ],
)
def test_weights_that_do_not_fit(weights, bias, text):
    with pytest.raises(kx.ShapeError, match=rf"LogLinear: {text}.*Fix:"):
        T.LogLinear(weights, bias)(jnp.ones(2))


def test_one_after_the_other():
    chain = T.Chain(T.Chain(T.Linear([[1.0, 2.0]]), lambda x: x[0]), Stretch(2.0))
    np.testing.assert_allclose(chain(jnp.asarray([0.4, -1.2])), [-4.0], rtol=4 * EPS)
    assert list(chain.hyperparameters) == ["first.first.matrix", "second.power"]
    with pytest.raises(kx.ShapeError, match="`first` returned shape"):
        T.Chain(lambda x: x[:, None], jnp.sin)(jnp.ones(2))
    with pytest.raises(kx.ParameterError, match=r"`second` is 1\.0, expected a function"):
        T.Chain(jnp.sin, 1.0)


MAPS = [
    T.Linear([[1.0, 2.0]]),
    T.Periodic([0.9, 2.1]),
    T.LogLinear([0.3, -0.2], 0.1),
    T.Chain(T.Periodic(0.9), T.LogLinear(0.1)),
    Stretch(1.5),
]


@pytest.mark.parametrize("transform", MAPS, ids=lambda t: type(t).__name__)
def test_what_every_transform_does(transform):
    X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    plain = jnp.stack([transform(x) for x in X])
    values = jax.jit(lambda t, X: jax.vmap(t)(X))(transform, X)
    np.testing.assert_allclose(values, plain, rtol=1e-14, atol=1e-15)
    at = lambda values: transform.replace(**values)(X[0])
    both = jax.jit(lambda values: (jax.jacfwd(at)(values), jax.jacrev(at)(values)))
    forward, reverse = both(transform.hyperparameters)
    for path, value in forward.items():
        np.testing.assert_allclose(value, reverse[path], rtol=1e-13, atol=1e-14)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), transform)
    assert half(X[0].astype(jnp.float32)).dtype == jnp.float32
    assert pickle.loads(pickle.dumps(transform)).equals(transform)
    assert repr(transform).startswith(type(transform).__name__ + "(")
    assert "Array" not in repr(transform)


def test_a_transform_needs_a_formula():
    with pytest.raises(TypeError, match="abstract"):
        type("Nothing", (T.Transform,), {})()
