"""Start values and priors from the data's scale: any units give the same fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx

RNG = np.random.default_rng(2)
X = RNG.uniform(size=(30, 2))
Y = np.sin(6 * X[:, 0]) + X[:, 1] + 0.1 * RNG.normal(size=30)
KERNEL = 1.0 * kx.SEKernel([1.0, 1.0]) + kx.ActiveDimsKernel(1.0 * kx.Matern32Kernel(), [1])
GP = kx.GaussianProcess(KERNEL, 0.1, mean=0.0)
SCALE, SHIFT = np.array([1e4, 1e-3]), np.array([2e5, 0.0])


def test_start_values_are_those_of_the_table():
    start = kx.default_start(GP, X, Y).hyperparameters
    left, right = "kernel.left_kernel.", "kernel.right_kernel.inner_kernel."
    spread = X.std(axis=0)
    expected = {
        f"{left}left_kernel.value": Y.var() / 2,
        f"{left}right_kernel.length_scale": np.sqrt(2) * spread,
        f"{right}left_kernel.value": Y.var() / 2,
        f"{right}right_kernel.length_scale": spread[1],
        "noise_variance": Y.var() / 10,
        "mean.value": Y.mean(),
    }
    assert start.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(start[path], value, rtol=1e-12)


def test_priors_have_their_medians():
    priors = kx.default_priors(GP, X, Y)
    scale = priors["kernel.left_kernel.right_kernel.length_scale"]
    np.testing.assert_allclose(np.exp(scale.loc), 4.1 * np.sqrt(2) * np.ptp(X, axis=0))
    np.testing.assert_allclose(np.exp(priors["noise_variance"].loc), Y.var() / 100)
    assert priors["mean.value"].loc == pytest.approx(Y.mean())


def test_the_dimension_stretches_the_length_scale():
    wide = RNG.uniform(size=(30, 9))
    medians = [
        float(np.exp(kx.default_priors(gp, points, Y)["kernel.length_scale"].loc))
        for gp, points in (
            (kx.GaussianProcess(kx.SEKernel()), wide[:, :1]),
            (kx.GaussianProcess(kx.SEKernel()), wide),
        )
    ]
    assert 2.7 < medians[1] / medians[0] < 3.3  # sqrt(9)


def test_any_units_give_the_same_fit():
    options = {"priors": "data", "start": "data", "progress": False}
    plain = kx.fit(GP, X, Y, **options)
    scaled = kx.fit(GP, SHIFT + SCALE * X, 1e5 + 3e3 * Y, **options)
    points = RNG.uniform(size=(5, 2))
    one = plain.gp.condition(X, Y).mean(points)
    other = scaled.gp.condition(SHIFT + SCALE * X, 1e5 + 3e3 * Y).mean(SHIFT + SCALE * points)
    np.testing.assert_allclose((other - 1e5) / 3e3, one, rtol=1e-3, atol=1e-3)
    assert plain.converged
    assert scaled.converged


def test_what_is_fixed_stays_and_what_scale_does_not_tell_keeps_its_value():
    gp = kx.GaussianProcess(2.0 * kx.PeriodicKernel(1.0, 0.5), 0.0)
    start = kx.default_start(gp, X, Y)
    assert start.kernel.right_kernel.period == 0.5
    assert start.noise_variance == 0.0
    inside = kx.GaussianProcess(kx.ARDKernel(kx.SEKernel(), [1.0, 1.0]), 0.1)
    assert set(kx.default_priors(inside, X, Y)) == {"kernel.length_scales", "noise_variance"}
    fitted = kx.fit(GP, X, Y, fixed="noise_variance", start="data", max_steps=200, progress=False)
    assert fitted.gp.noise_variance == 0.1


def test_columns_that_do_not_vary_and_data_too_few():
    flat = np.column_stack([X[:, 0], np.ones(30)])
    start = kx.default_start(kx.GaussianProcess(kx.SEKernel([1.0, 1.0])), flat, np.ones(30))
    assert np.isfinite(start.kernel.length_scale).all()
    assert start.kernel.length_scale[1] > 0
    with pytest.raises(kx.ParameterError, match="`X` has 1 real rows"):
        kx.default_start(GP, X[:1], Y[:1])
    batch = kx.GaussianProcess(kx.BatchKernel(kx.SEKernel(), 2, 0))
    with pytest.raises(kx.ParameterError, match="for one process, and this is a batch"):
        kx.default_priors(batch, X[None], Y[None])
    with pytest.raises(
        kx.ParameterError, match="`start` is 'here', expected 'auto', 'given' or 'data'"
    ):
        kx.fit(GP, X, Y, start="here")


def test_raw_data_need_no_start_values():
    """Data of any units, far from the values that a kernel is written with."""
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(2e5, 2.9e5, 60))
    y = 3000.0 * np.sin(x / 8000.0) + 5e4 + 100.0 * rng.normal(size=60)
    gp = kx.GaussianProcess(1.0 * kx.SEKernel(1.0), 1.0, mean=kx.ConstantMean(0.0))
    fitted = kx.fit(gp, x, y, progress=False)
    assert fitted.converged
    ahead = rng.uniform(2.1e5, 2.8e5, 20)
    wanted = 3000.0 * np.sin(ahead / 8000.0) + 5e4
    assert np.sqrt(np.mean((fitted.gp.condition(x, y).mean(ahead) - wanted) ** 2)) < 200
    # A start that explains the data stays, whatever their scale says.
    near = fitted.gp.replace(noise_variance=2e4)
    again = kx.fit(near, x, y, progress=False)
    np.testing.assert_allclose(again.history[0], -near.log_marginal_likelihood(x, y), rtol=1e-12)
    with pytest.warns(kx.ConvergenceWarning, match="after 0 steps"):
        told = kx.fit(gp, x, y, start="given", max_steps=0, progress=False)
    np.testing.assert_allclose(told.loss, -gp.log_marginal_likelihood(x, y), rtol=1e-12)


def test_values_that_are_tied_or_have_another_shape_are_left_out():
    class Humps(kx.AbstractKernel):
        """Three length-scales, whatever the dimension."""

        length_scale: jax.Array = kx.positive(1.0)

        def pairwise(self, x, y):
            s = jnp.sum(jnp.square(x - y))
            return jnp.sum(jnp.exp(-s / self.length_scale**2))

    own = kx.default_start(kx.GaussianProcess(Humps(np.ones(3)), 0.1), X, Y)
    np.testing.assert_array_equal(own.kernel.length_scale, 1.0)
    tied = kx.tie(
        kx.SEKernel(2.0) + kx.SEKernel(2.0),
        {"right_kernel.length_scale": "left_kernel.length_scale"},
    )
    found = kx.default_start(kx.GaussianProcess(tied, 0.1), X, Y).hyperparameters
    assert found.keys() == {"kernel.inner_kernel.left_kernel.length_scale", "noise_variance"}
