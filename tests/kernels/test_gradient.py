"""Derivatives in the points, as arrays over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, VARIED

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))


@pytest.mark.parametrize("name", VARIED)
def test_both_arguments_against_differences(name):
    k, h = CASES[name].kernel, 1e-6
    first, second = k.gradient(X, Y), k.gradient(X, Y, argument=1)
    assert first.shape == second.shape == (4, 3, 2)
    scale = max(1.0, float(np.abs(k.gram(X, Y)).max()))
    for j in range(2):
        step = h * np.eye(2)[j]
        in_x = (k.gram(X + step, Y) - k.gram(X - step, Y)) / (2 * h)
        in_y = (k.gram(X, Y + step) - k.gram(X, Y - step)) / (2 * h)
        np.testing.assert_allclose(first[..., j], in_x, rtol=1e-6, atol=1e-8 * scale)
        np.testing.assert_allclose(second[..., j], in_y, rtol=1e-6, atol=1e-8 * scale)


def test_by_hand_and_at_coincident_points():
    points = np.array([0.0, 0.0, 1.5])
    difference = points[:, None] - points
    for k, expected in (
        (kx.SEKernel(0.7), -difference / 0.49 * np.exp(-0.5 * difference**2 / 0.49)),
        (kx.Matern12Kernel(0.7), -np.sign(difference) / 0.7 * np.exp(-np.abs(difference) / 0.7)),
    ):
        found = k.gradient(points)
        assert found.shape == (3, 3, 1)
        np.testing.assert_allclose(found[..., 0], expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(found[:2, :2], 0.0)
        np.testing.assert_allclose(k.gradient(points, argument=1)[..., 0], -expected, atol=1e-15)
    noisy = kx.SEKernel(0.7) + kx.WhiteNoiseKernel(0.1)
    np.testing.assert_array_equal(noisy.gradient(points), kx.SEKernel(0.7).gradient(points))


def test_batches_and_padding():
    batch = kx.BatchKernel(kx.Matern32Kernel(1.0), 2, 0).replace(length_scale=[0.5, 2.0])
    both = batch.gradient(np.stack([X, X + 1]), Y)
    assert both.shape == (2, 4, 3, 2)
    np.testing.assert_allclose(both[1], kx.Matern32Kernel(2.0).gradient(X + 1, Y), rtol=1e-13)
    padded = np.vstack([X, [[np.nan, 0.0]]])
    found = np.asarray(kx.SEKernel(1.0).gradient(padded, Y))
    np.testing.assert_array_equal(found[:4], kx.SEKernel(1.0).gradient(X, Y))
    assert np.isnan(found[4]).all()


def test_under_transformations():
    k = kx.Matern52Kernel(0.8)
    total = lambda scale: jnp.sum(jnp.sin(k.replace(length_scale=scale).gradient(X, Y)))
    both = jax.jit(jax.value_and_grad(total))
    (_, slope), (above, _), (below, _) = (both(0.8 + h) for h in (0.0, 1e-6, -1e-6))
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-7)


@pytest.mark.parametrize("argument", [2, -1, True, "x", None])
def test_an_argument_that_is_not_there(argument):
    with pytest.raises(kx.ParameterError, match=r"`argument` is .*expected 0 .* or 1.*Fix:"):
        kx.SEKernel().gradient(X, Y, argument=argument)
