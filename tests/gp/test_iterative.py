"""Inference by iteration against exact inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.gp import _choice
from kernax.gp._fit_iterative import KEPT, Walk, _carried_on

RNG = np.random.default_rng(6)
N = 120
X, XS = RNG.normal(size=(N, 2)), RNG.normal(size=(15, 2))
Y = np.sin(2.0 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=N)
KERNEL = 1.5 * kx.Matern52Kernel([0.9, 1.3]) + kx.WhiteNoiseKernel(0.01)
MEAN = kx.ConstantMean(0.3)
EXACT = kx.GaussianProcess(KERNEL, 0.04, mean=MEAN, solver=kx.Dense())


def iterative(kernel=KERNEL, **options):
    options = {"tolerance": 1e-10, "rank": 20, "probes": 24, "features": 256} | options
    return kx.GaussianProcess(kernel, 0.04, mean=MEAN, solver=kx.Iterative(**options))


@pytest.fixture(scope="module")
def posteriors():
    return EXACT.condition(X, Y), iterative().condition(X, Y)


def test_means_and_covariances(posteriors):
    exact, found = posteriors
    np.testing.assert_allclose(found.mean(XS), exact.mean(XS), atol=1e-8)
    np.testing.assert_allclose(found.weights, exact.weights, atol=1e-7)
    np.testing.assert_allclose(found.covariance(XS), exact.covariance(XS), atol=1e-8)
    own = found.covariance(XS, observation=True)
    np.testing.assert_allclose(own, exact.covariance(XS, observation=True), atol=1e-8)
    slopes = found.mean(XS, operator=kx.Gradient())
    np.testing.assert_allclose(slopes, exact.mean(XS, operator=kx.Gradient()), atol=1e-7)
    assert float(found.residual) < 1.1e-10
    padded = np.concatenate([XS, [[np.nan, 0.0]]])
    assert np.isnan(found.mean(padded)[-1])
    column = iterative().condition(X, Y[:, None])
    np.testing.assert_allclose(column.mean(XS), exact.mean(XS)[:, None], atol=1e-8)


def test_variances_and_draws_come_from_the_same_solves():
    exact = EXACT.condition(X, Y)
    found = iterative(probes=400, features=8192).condition(X, Y)
    ratio = np.asarray(found.variance(XS) / exact.variance(XS))
    assert abs(ratio.mean() - 1.0) < 0.08
    assert np.abs(ratio - 1.0).max() < 4 * np.sqrt(2 / 400)
    seen = found.variance(XS, observation=True) - found.variance(XS)
    np.testing.assert_allclose(seen, 0.05, rtol=1e-9)
    draws = found.sample(jax.random.key(0), XS, (20, 20))
    assert draws.shape == (20, 20, 15)
    flat = np.asarray(draws).reshape(400, -1)
    error = np.sqrt(np.asarray(exact.variance(XS)) / 400)
    assert (np.abs(flat.mean(axis=0) - np.asarray(exact.mean(XS))) < 4 * error).all()
    around = flat - np.asarray(found.mean(XS))
    np.testing.assert_allclose(np.mean(around**2, axis=0), found.variance(XS))


@pytest.mark.parametrize(
    "kernel", [KERNEL, 1.2 * kx.Matern32Kernel(1.0) + 0.3 * kx.ArcCosineKernel()]
)
def test_likelihood_and_its_gradient_within_their_errors(kernel):
    """The second kernel has no random features: its probes are signs."""
    loss = lambda gp: gp.log_marginal_likelihood(X, Y)
    exact = kx.GaussianProcess(kernel, 0.04, mean=MEAN, solver=kx.Dense())
    want, slopes = jax.value_and_grad(loss)(exact)
    found, each = [], []
    for seed in range(5):
        gp = iterative(kernel, probes=32, seed=seed)
        value, gradient = jax.value_and_grad(loss)(gp)
        found.append(float(value))
        each.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]))
    error = np.std(found, ddof=1) / np.sqrt(5)
    assert abs(np.mean(found) - want) < 4 * error + 1e-6
    want = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slopes)])
    error = np.std(each, axis=0, ddof=1) / np.sqrt(5)
    assert (np.abs(np.mean(each, axis=0) - want) < 4 * error + 1e-6).all()
    assert (error < 0.2 * np.abs(want).max()).all()


def test_results_do_not_depend_on_what_is_held(posteriors):
    tiles = iterative(memory=0).condition(X, Y)
    np.testing.assert_allclose(tiles.weights, posteriors[1].weights, atol=1e-9)
    np.testing.assert_allclose(tiles.state.draws, posteriors[1].state.draws, atol=1e-8)
    assert posteriors[1].plan.stored
    assert not tiles.plan.stored


def test_gradients_in_points_and_values():
    gp = iterative(probes=64)
    dX, dy = jax.grad(lambda X, y: gp.log_marginal_likelihood(X, y), argnums=(0, 1))(X, Y)
    np.testing.assert_allclose(dy, -np.asarray(EXACT.condition(X, Y).weights), atol=1e-7)
    exact = jax.grad(lambda X: EXACT.log_marginal_likelihood(X, Y))(jnp.asarray(X))
    assert np.corrcoef(np.ravel(dX), np.ravel(exact))[0, 1] > 0.98


def test_padding_and_updates(posteriors):
    exact, found = posteriors
    padded = np.concatenate([X, np.full((5, 2), np.nan)]), np.concatenate([Y, np.zeros(5)])
    again = iterative().condition(*padded)
    np.testing.assert_allclose(again.mean(XS), exact.mean(XS), atol=1e-8)
    np.testing.assert_allclose(again.variance(XS), found.variance(XS), rtol=1e-6)
    more = found.update(XS, np.zeros(15))
    np.testing.assert_allclose(more.mean(XS), exact.update(XS, np.zeros(15)).mean(XS), atol=1e-7)
    assert int(more.state.steps) < int(iterative().condition(X, Y).state.steps) + 5


def test_fit_comes_near_the_exact_one_and_goes_on_where_it_stopped(tmp_path):
    options = {"fixed": ("mean", "kernel.right_kernel"), "progress": False}
    y = EXACT.sample(jax.random.key(1), X, observation=True)
    exact = kx.fit(EXACT, X, y, **options)
    found = kx.fit(iterative(probes=64), X, y, **options, max_steps=150)
    assert found.converged
    at = kx.GaussianProcess(found.gp.kernel, found.gp.noise_variance, mean=MEAN)
    assert -at.log_marginal_likelihood(X, y) < exact.loss + 0.5
    assert found.details["residual"] < 1.1e-2
    assert found.details["loss_error"] > 0
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 6 steps"):
        whole = kx.fit(iterative(), X, Y, **options, max_steps=6)
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
        half = kx.fit(iterative(), X, Y, **options, max_steps=3)
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
        rest = kx.fit(iterative(), X, Y, **options, max_steps=3, resume=half)
    np.testing.assert_array_equal(rest.runs.u, whole.runs.u)
    for _ in range(2):
        with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
            written = kx.fit(iterative(), X, Y, **options, max_steps=3, checkpoint=tmp_path)
    np.testing.assert_array_equal(written.runs.u, whole.runs.u)
    with pytest.raises(kx.ParameterError, match="`checkpoint` is for iterative fits"):
        kx.fit(EXACT, X, Y, **options, checkpoint=tmp_path)
    with pytest.raises(kx.ParameterError, match="second derivatives take an exact one"):
        rest.laplace()
    with pytest.raises(kx.ParameterError, match="no result of this iterative fit"):
        kx.fit(iterative(), X, Y, **options, resume=exact)


def test_auto_says_what_it_chose(monkeypatch):
    assert isinstance(_choice.choose(kx.GaussianProcess(KERNEL), _data(X))[0], kx.Dense)
    monkeypatch.setattr(_choice, "FEW", 50)
    monkeypatch.setattr(_choice, "why_iterative", lambda n, size: f"n = {n} is many")
    with pytest.warns(kx.KernaxWarning, match="chose Iterative.*n = 120 is many"):
        posterior = kx.GaussianProcess(KERNEL, 0.04).condition(X, Y)
    assert isinstance(posterior, kx.IterativePosterior)
    assert posterior.reason == "n = 120 is many"


def test_memory_is_looked_at_first(monkeypatch):
    monkeypatch.setattr(_choice, "FEW", 50)
    monkeypatch.setattr("kernax._memory.available", lambda: 1000)
    with pytest.raises(kx.ResourceError, match=r"needs 0\.0 GB.*solver=kernax.Iterative"):
        EXACT.condition(X, Y)


def test_refused():
    gp = iterative()
    with pytest.raises(kx.ParameterError, match="there are several targets"):
        gp.condition(X, np.stack([Y, Y], axis=1))
    with pytest.raises(kx.ParameterError, match="there are blocks"):
        gp.condition([(kx.Identity(), X, Y)])
    with pytest.raises(kx.ParameterError, match="as many, or use Dense"):
        gp.condition(X, Y).sample(jax.random.key(0), XS, (100,))
    with pytest.raises(kx.ParameterError, match="`restarts` are for exact fits"):
        kx.fit(gp, X, Y, restarts=2)
    with pytest.raises(kx.ParameterError, match="`tolerance` is 2"):
        kx.Iterative(tolerance=2.0)
    with pytest.raises(kx.ParameterError, match="`rank` is -1"):
        kx.Iterative(rank=-1)
    with pytest.warns(kx.ConvergenceWarning, match="after 4 products, and 1e-10 was asked for"):
        iterative(max_steps=3).condition(X, Y)


def _data(X):
    from kernax.gp._data import as_data

    return as_data(kx.GaussianProcess(KERNEL), X, np.zeros(len(X)), None, "pad")


def test_a_solve_starts_where_the_last_ones_lead():
    k, n, points = 3, 5, RNG.normal(size=(4, 3))
    rates = RNG.normal(size=(n, 2, k))
    affine = lambda u: rates @ u + 1.0
    begin = dict.fromkeys(Walk._fields) | {"u": jnp.asarray(points[0]), "step": jnp.asarray(0)}
    begin |= {"solutions": jnp.zeros((n, 2, KEPT)), "points": jnp.tile(begin["u"], (KEPT, 1))}
    state = Walk(**begin)
    np.testing.assert_array_equal(_carried_on(state), np.zeros((n, 2)))  # nothing is known yet
    solutions = jnp.stack([affine(u) for u in points[:3]], axis=2)
    known = state._replace(solutions=solutions, points=jnp.asarray(points[:3]))
    # After one step there is one solution, after three all moves within their plane are right.
    one = known._replace(step=jnp.asarray(1), u=jnp.asarray(points[3]))
    np.testing.assert_allclose(_carried_on(one), affine(points[0]), rtol=1e-12)
    between = points[0] + 0.3 * (points[1] - points[0]) - 1.2 * (points[2] - points[0])
    three = known._replace(step=jnp.asarray(3), u=jnp.asarray(between))
    np.testing.assert_allclose(_carried_on(three), affine(between), rtol=1e-4)
    still = three._replace(points=jnp.asarray(points[[0, 0, 0]]), u=jnp.asarray(points[0]))
    np.testing.assert_allclose(_carried_on(still), affine(points[0]), rtol=1e-12)
