"""Inference by iteration against exact inference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.gp import _choice, _process
from kernax.gp._fit_iterative import DAMPING, KEPT, Walk, _carried_on
from kernax.gp._iterative import key_of

RNG = np.random.default_rng(6)
N = 120
X, XS = RNG.normal(size=(N, 2)), RNG.normal(size=(15, 2))
Y = np.sin(2.0 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=N)
SCALES, NOISE = np.array([0.9, 1.3]), 0.05  # in all: a fifth of it is white noise of the kernel
KERNEL = 1.5 * kx.Matern52Kernel(SCALES) + kx.WhiteNoiseKernel(0.01)
MEAN = kx.ConstantMean(0.3)
EXACT = kx.GaussianProcess(KERNEL, 0.04, mean=MEAN, solver=kx.Dense())


def iterative(kernel=KERNEL, **options):
    # Options are compiled in, so that most tests have the same.
    options = {"tolerance": 1e-10, "rank": 20, "probes": 400, "features": 2048} | options
    return kx.GaussianProcess(kernel, 0.04, mean=MEAN, solver=kx.Iterative(**options))


def covariances(A, B):
    """k and dk/dx_j of the kernel above, without its white noise."""
    u = (A[:, None, :] - B[None, :, :]) / SCALES
    r = np.sqrt(5.0) * np.linalg.norm(u, axis=2)
    fall = 1.5 * np.exp(-r)
    return fall * (1 + r + r**2 / 3), -5 / 3 * (fall * (1 + r))[..., None] * u / SCALES


class Exact:
    """The posterior by its formulas in NumPy."""

    def __init__(self, X, y):
        self.X, self.K = X, covariances(X, X)[0] + NOISE * np.eye(len(X))
        self.weights = np.linalg.solve(self.K, y - 0.3)

    def mean(self, points):
        return 0.3 + covariances(points, self.X)[0] @ self.weights

    def slopes(self, points):
        return np.einsum("mnd,n->md", covariances(points, self.X)[1], self.weights)

    def covariance(self, points):
        cross = covariances(points, self.X)[0]
        return covariances(points, points)[0] - cross @ np.linalg.solve(self.K, cross.T)


@pytest.fixture(scope="module")
def exact():
    return Exact(X, Y)


PADDED = np.concatenate([X, np.full((5, 2), np.nan)]), np.concatenate([Y, np.zeros(5)])


@pytest.fixture(scope="module")
def found():
    """With padding, which is to change nothing."""
    return iterative().condition(*PADDED)


def test_means_and_covariances(exact, found):
    np.testing.assert_allclose(found.mean(XS), exact.mean(XS), atol=1e-8)
    np.testing.assert_allclose(found.weights[:N], exact.weights, atol=1e-7)
    np.testing.assert_allclose(found.covariance(XS), exact.covariance(XS), atol=1e-8)
    own = found.covariance(XS, observation=True)
    np.testing.assert_allclose(own, exact.covariance(XS) + NOISE * np.eye(15), atol=1e-8)
    slopes = found.mean(XS, operator=kx.Gradient())
    np.testing.assert_allclose(slopes, exact.slopes(XS), atol=1e-7)
    assert float(found.residual) < 1.1e-10
    assert repr(found) == f"IterativePosterior({found.gp!r}, X of shape {found.data.X.shape})"
    padded = np.concatenate([XS, [[np.nan, 0.0]]])
    assert np.isnan(found.mean(padded)[-1])
    column = iterative().condition(PADDED[0], PADDED[1][:, None])
    np.testing.assert_allclose(column.mean(XS), exact.mean(XS)[:, None], atol=1e-8)


def test_variances_and_draws_come_from_the_same_solves(exact, found):
    variance, want = np.asarray(found.variance(XS)), np.diag(exact.covariance(XS))
    ratio = variance / want
    assert abs(ratio.mean() - 1.0) < 0.08
    assert np.abs(ratio - 1.0).max() < 4 * np.sqrt(2 / 400)
    seen = np.asarray(found.variance(XS, observation=True)) - variance
    np.testing.assert_allclose(seen, NOISE, rtol=1e-9)
    draws = found.sample(jax.random.key(0), XS, (20, 20))
    assert draws.shape == (20, 20, 15)
    flat = np.asarray(draws).reshape(400, -1)
    error = np.sqrt(want / 400)
    assert (np.abs(flat.mean(axis=0) - exact.mean(XS)) < 4 * error).all()
    around = flat - np.asarray(found.mean(XS))
    np.testing.assert_allclose(np.mean(around**2, axis=0), variance)


# The second has no random features: its probes are signs.
KERNELS = {"features": KERNEL, "signs": 1.2 * kx.Matern32Kernel(1.0) + 0.3 * kx.ArcCosineKernel()}


@functools.cache
def likelihoods(name):
    """The exact likelihood and its gradient, and the estimates of five seeds."""
    gp = iterative(KERNELS[name], probes=64, features=256)
    wanted = (0, 1, 2) if name == "features" else (0,)
    slopes = lambda f: jax.value_and_grad(f, wanted)
    likelihood = lambda gp, X, y: gp.log_marginal_likelihood(X, y)
    exactly = kx.GaussianProcess(gp.kernel, gp.noise_variance, gp.mean, kx.Dense())
    exact = jax.jit(slopes(likelihood))(exactly, X, Y)

    def seeded(gp, X, y, key):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_process, "key_of", lambda solver: key)
            return likelihood(gp, X, y)

    # In one program: the seed of a solver is compiled in where what it solves is traced.
    keys = jnp.stack([key_of(kx.Iterative(seed=seed)) for seed in range(5)])
    each = jax.jit(lambda *of: jax.lax.map(lambda key: slopes(seeded)(*of, key), keys))
    return exact, each(gp, X, Y)


@pytest.mark.parametrize("name", KERNELS)
def test_likelihood_and_its_gradient_within_their_errors(name):
    (value, slopes), (found, each) = likelihoods(name)
    error = np.std(found, ddof=1) / np.sqrt(5)
    assert abs(np.mean(found) - value) < 4 * error + 1e-6
    want = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slopes[0])])
    leaves = [np.asarray(leaf).reshape(5, -1) for leaf in jax.tree.leaves(each[0])]
    each = np.concatenate(leaves, axis=1)
    error = np.std(each, axis=0, ddof=1) / np.sqrt(5)
    assert (np.abs(np.mean(each, axis=0) - want) < 4 * error + 1e-6).all()
    assert (error < 0.14 * np.abs(want).max()).all()


def test_gradients_in_points_and_values(exact):
    (_, (_, wanted, _)), (_, (_, dX, dy)) = likelihoods("features")
    np.testing.assert_allclose(dy, np.tile(-exact.weights, (5, 1)), atol=1e-7)
    for one in np.asarray(dX):
        assert np.corrcoef(np.ravel(one), np.ravel(wanted))[0, 1] > 0.98


def test_results_depend_neither_on_what_is_held_nor_on_padding(exact, found):
    tiles = iterative(memory=0).condition(X, Y)
    np.testing.assert_allclose(tiles.weights, found.weights[:N], atol=1e-9)
    np.testing.assert_allclose(tiles.state.draws, found.state.draws[:N], atol=1e-8)
    np.testing.assert_allclose(tiles.mean(XS), exact.mean(XS), atol=1e-8)
    np.testing.assert_allclose(tiles.variance(XS), found.variance(XS), rtol=1e-6)
    assert found.plan.stored
    assert not tiles.plan.stored


def test_updates(found):
    more = found.update(XS, np.zeros(15))
    both = Exact(np.concatenate([X, XS]), np.concatenate([Y, np.zeros(15)]))
    np.testing.assert_allclose(more.mean(XS), both.mean(XS), atol=1e-7)
    assert int(more.state.steps) < int(found.state.steps) + 5


def test_fit_comes_near_the_exact_one_and_goes_on_where_it_stopped(tmp_path):
    options = {"fixed": ("mean", "kernel.right_kernel"), "progress": False}
    y = EXACT.sample(jax.random.key(1), X, observation=True)
    exact = kx.fit(EXACT, X, y, **options)
    gp = iterative(probes=64, features=256)
    found = kx.fit(gp, X, y, **options, max_steps=150)
    assert found.converged
    at = EXACT.replace(**found.gp.hyperparameters)
    assert -at.log_marginal_likelihood(X, y) < exact.loss + 0.5
    assert found.details["residual"] < 1.1e-2
    assert found.details["loss_error"] > 0
    assert f"after {found.details['steps']} steps" in found.summary()
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 6 steps"):
        whole = kx.fit(gp, X, Y, **options, max_steps=6)
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
        half = kx.fit(gp, X, Y, **options, max_steps=3)
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
        rest = kx.fit(gp, X, Y, **options, max_steps=3, resume=half)
    np.testing.assert_array_equal(rest.runs.u, whole.runs.u)
    for _ in range(2):
        with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
            written = kx.fit(gp, X, Y, **options, max_steps=3, checkpoint=tmp_path)
    np.testing.assert_array_equal(written.runs.u, whole.runs.u)
    with pytest.raises(kx.ParameterError, match="`checkpoint` is for iterative fits"):
        kx.fit(EXACT, X, Y, **options, checkpoint=tmp_path)
    with pytest.raises(kx.ParameterError, match="second derivatives take an exact one"):
        rest.laplace()
    with pytest.raises(kx.ParameterError, match="no result of this iterative fit"):
        kx.fit(gp, X, Y, **options, resume=exact)


def test_auto_says_what_it_chose(monkeypatch):
    assert isinstance(_choice.choose(kx.GaussianProcess(KERNEL), _data(X))[0], kx.Dense)
    monkeypatch.setattr(_choice, "FEW", 50)
    monkeypatch.setattr(_choice, "why_iterative", lambda n, size: f"n = {n} is many")
    with pytest.warns(kx.KernaxWarning, match="chose Iterative.*n = 120 is many"):
        posterior = kx.GaussianProcess(kx.SEKernel(), 0.04).condition(X, Y)
    assert isinstance(posterior, kx.IterativePosterior)
    assert posterior.reason == "n = 120 is many"


def test_memory_is_looked_at_first(monkeypatch):
    monkeypatch.setattr(_choice, "FEW", 50)
    monkeypatch.setattr("kernax._memory.available", lambda: 1000)
    with pytest.raises(kx.ResourceError, match=r"needs 0\.0 GB.*solver=kernax.Iterative"):
        EXACT.condition(X, Y)


def test_refused(found):
    gp = iterative()
    with pytest.raises(kx.ParameterError, match="there are several targets"):
        gp.condition(X, np.stack([Y, Y], axis=1))
    with pytest.raises(kx.ParameterError, match="there are blocks"):
        gp.condition([(kx.Identity(), X, Y)])
    with pytest.raises(kx.ParameterError, match="as many, or use Dense"):
        found.sample(jax.random.key(0), XS, (401,))
    with pytest.raises(kx.ParameterError, match="`restarts` are for exact fits"):
        kx.fit(gp, X, Y, restarts=2)
    with pytest.raises(kx.ParameterError, match="`tolerance` is 2"):
        kx.Iterative(tolerance=2.0)
    with pytest.raises(kx.ParameterError, match="`rank` is -1"):
        kx.Iterative(rank=-1)
    few = kx.Iterative(tolerance=1e-10, max_steps=3, rank=0, features=256)
    gp = kx.GaussianProcess(kx.SEKernel(), 0.04, solver=few)
    with pytest.warns(kx.ConvergenceWarning, match="after 4 products, and 1e-10 was asked for"):
        gp.condition(X, Y)


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
    # After one step there is one solution.
    one = known._replace(step=jnp.asarray(1), u=jnp.asarray(points[3]))
    np.testing.assert_allclose(_carried_on(one), affine(points[0]), rtol=1e-12)
    between = points[0] + 0.3 * (points[1] - points[0]) - 1.2 * (points[2] - points[0])
    three = known._replace(step=jnp.asarray(3), u=jnp.asarray(between))
    # After three, all moves within their plane are right, but for what damps the coefficients.
    moves = (points[1:3] - points[0]).T
    damped = np.vstack([moves, np.sqrt(DAMPING) * np.linalg.norm(moves) * np.eye(2)])
    a = np.linalg.lstsq(damped, [*(between - points[0]), 0.0, 0.0])[0]
    np.testing.assert_allclose(_carried_on(three), affine(points[0] + moves @ a), rtol=1e-11)
    np.testing.assert_allclose(_carried_on(three), affine(between), rtol=0.1, atol=0.05)
    still = three._replace(points=jnp.asarray(points[[0, 0, 0]]), u=jnp.asarray(points[0]))
    np.testing.assert_allclose(_carried_on(still), affine(points[0]), rtol=1e-12)
