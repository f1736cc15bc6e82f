"""First and second derivatives by rules, against JAX on the formula, pair by pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax._module import prepared
from tests.table import CASES, SPINE


def by_jax(kernel, X, Y):
    """The mixed ones, and those in the second point: the derivatives there of both gradients."""
    gradients = jax.grad(prepared(kernel, X.dtype).pairwise, argnums=(0, 1))
    x, y = jnp.repeat(X, len(Y), axis=0), jnp.tile(Y, (len(X), 1))
    found = jax.vmap(jax.jacfwd(gradients, argnums=1))(x, y)
    return [each.reshape(len(X), len(Y), *each.shape[1:]) for each in found]


# Those of which rules are known; the rest is differentiated by JAX.
@pytest.mark.parametrize(
    "name", [n for n in SPINE if CASES[n].kernel.differentiability >= 1 and CASES[n].smooth]
)
def test_mixed_and_plain_hessians(name, points):
    X = jnp.asarray(points)

    @jax.jit  # all in one program
    def evaluate(kernel):
        return (kernel.mixed_hessian(points), kernel.hessian(points)), by_jax(kernel, X, X)

    for found, want in zip(*evaluate(CASES[name].kernel), strict=True):
        np.testing.assert_allclose(found, want, atol=1e-12 * (1 + np.abs(want).max()))


def test_second_derivatives_at_coincident_points():
    x = np.zeros((1, 1))
    expected = [
        (kx.SEKernel(0.6), 1 / 0.36),
        (kx.Matern32Kernel(0.6), 3 / 0.36),
        (kx.Matern52Kernel(0.6), 5 / (3 * 0.36)),
        (kx.RationalQuadraticKernel(0.6, 1.7), 1 / 0.36),
        (kx.PeriodicKernel(1.0, 0.9), 4 * np.pi**2 / 0.81),
    ]
    for kernel, value in expected:
        np.testing.assert_allclose(kernel.mixed_hessian(x)[0, 0, 0, 0], value, rtol=1e-14)


def test_hessians_of_what_is_not_differentiable_are_refused(points):
    rough = kx.SEKernel() * kx.ActiveDimsKernel(kx.Matern12Kernel(), [1])
    for call in (rough.hessian, rough.mixed_hessian):
        with pytest.raises(kx.ParameterError, match="Matern12Kernel is not mean-square"):
            call(points)
    with pytest.raises(kx.ParameterError, match="`argument` is 2"):
        kx.SEKernel().hessian(points, argument=2)


def test_padding_and_batches(points):
    padded = np.concatenate([points, np.full((1, 2), np.nan)])
    H = kx.Matern52Kernel(0.6).mixed_hessian(padded)
    assert np.isnan(H[-1]).all()
    assert np.isnan(H[:, -1]).all()
    np.testing.assert_allclose(
        H[:-1, :-1], kx.Matern52Kernel(0.6).mixed_hessian(points), atol=1e-15
    )
    batch = kx.BatchKernel(kx.SEKernel(), 2, batch_in_axes=0, batch_over_inputs=False)
    batch = batch.replace(length_scale=[0.7, 1.9])
    np.testing.assert_allclose(
        batch.hessian(points)[1], kx.SEKernel(1.9).hessian(points), atol=1e-15
    )
