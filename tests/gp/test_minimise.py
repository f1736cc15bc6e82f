"""The optimiser by itself, and Laplace's approximation at what it finds."""

import jax
import numpy as np
import pytest
from scipy import optimize

import kernax as kx
from kernax.gp import _minimise
from tests.gp.test_fit import PATHS, RNG, fit, minus_log_likelihood


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_laplace_against_differences(fitted):
    """The covariance is the inverse of second differences of an independent loss."""
    found = fitted.laplace()
    u = np.log([float(fitted.gp.hyperparameters[path]) for path in PATHS])
    loss = lambda v: minus_log_likelihood(np.exp(v))
    e, h = np.eye(3), 1e-3
    H = [
        [
            sum(a * b * loss(u + h * (a * e[i] + b * e[j])) for a in (1, -1) for b in (1, -1))
            / (4 * h**2)
            for j in range(3)
        ]
        for i in range(3)
    ]
    np.testing.assert_allclose(found.covariance, np.linalg.inv(H), rtol=1e-3)
    assert found.paths == PATHS
    draws = found.sample(jax.random.key(0), 4000)
    logs = np.log([draws[path] for path in PATHS])
    spread = found.standard_deviation
    np.testing.assert_allclose(logs.mean(axis=1), u, atol=5 * spread.max() / np.sqrt(4000))
    np.testing.assert_allclose(logs.std(axis=1), spread, rtol=0.08)


def test_laplace_needs_a_minimum():
    with pytest.warns(kx.ConvergenceWarning):
        start = fit(max_steps=0)
    with pytest.raises(kx.NotPSDError, match="the loss is not convex where the fit ended"):
        start.laplace()


def rosenbrock(u, index):
    """A bent valley; each problem has its own floor at (a, a^2)."""
    a, x, y = 1.0 + 0.1 * index, u[:, 0], u[:, 1]
    slope = np.stack([-2 * (a - x) - 400 * x * (y - x * x), 200 * (y - x * x)], axis=1)
    return (a - x) ** 2 + 100 * (y - x * x) ** 2, slope


def test_minimisations_side_by_side_are_those_apart():
    starts = 2.0 * RNG.normal(size=(7, 2))
    options = (500, 1e-8, 1e-14, lambda runs: None)
    runs = _minimise.start_runs(rosenbrock, starts)
    _minimise.minimise(rosenbrock, runs, *options)
    assert (runs.stop == _minimise.Stop.CONVERGED).all()
    np.testing.assert_allclose(runs.u[:, 0], 1.0 + 0.1 * np.arange(7), rtol=1e-6)
    assert all((np.diff(history) <= 0).all() for history in runs.history)
    one = lambda u, index: rosenbrock(u, index + 3)
    alone = _minimise.start_runs(one, starts[3:4])
    _minimise.minimise(one, alone, *options)
    np.testing.assert_array_equal(alone.u[0], runs.u[3])
    assert alone.history[0] == runs.history[3]
    # SciPy's needs about as many steps.
    scipy = [
        optimize.minimize(
            lambda u, i=i: rosenbrock(u[None], np.array([i]))[0][0],
            starts[i],
            jac=lambda u, i=i: rosenbrock(u[None], np.array([i]))[1][0],
            method="L-BFGS-B",
            options={"gtol": 1e-8, "ftol": 1e-15},
        ).nit
        for i in range(7)
    ]
    assert runs.steps.mean() < 1.5 * np.mean(scipy)
