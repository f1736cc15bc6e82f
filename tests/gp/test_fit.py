"""Fitting: the optimum, priors, what stays fixed, restarts, and every way to stop."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import kernax as kx
from kernax import _inputs
from kernax.gp import _problem
from kernax.gp._data import as_data
from kernax.gp._priors import resolve_priors
from kernax.gp._problem import Problem

RNG = np.random.default_rng(21)
X = np.sort(RNG.uniform(-3, 3, 12))
Y = np.sin(X) + 0.1 * RNG.normal(size=12)
GP = kx.GaussianProcess(1.0 * kx.SEKernel(0.7), noise_variance=0.1)
PATHS = ("kernel.left_kernel.value", "kernel.right_kernel.length_scale", "noise_variance")


def fit(gp=GP, y=Y, **options):
    return kx.fit(gp, X, y, **{"progress": False, **options})


def problem_of(gp, X, y, held=(), priors=None):
    held = frozenset(held)
    data = as_data(gp, X, y, None, "pad")
    return Problem(gp, data, held, resolve_priors(gp, priors, held))


def compiled():
    return _problem._one._cache_size(), _problem._together._cache_size()


def minus_log_likelihood(theta, X=X, y=Y, mean=0.0):
    """At variance, length-scale and noise variance: an independent line of NumPy."""
    variance, scale, noise = theta
    K = variance * np.exp(-0.5 * ((X[:, None] - X) / scale) ** 2) + noise * np.eye(len(X))
    return -stats.multivariate_normal(np.full(len(X), mean), K).logpdf(y)


def minimum(f, start):
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000}
    return optimize.minimize(f, start, method="Nelder-Mead", options=options)


@pytest.fixture(scope="module")
def fitted():
    return fit()


# --- the optimum -------------------------------------------------------------------------------


def test_optimum_against_scipy(fitted):
    best = minimum(lambda u: minus_log_likelihood(np.exp(u)), np.log([1.0, 0.7, 0.1]))
    theta = [fitted.gp.hyperparameters[path] for path in PATHS]
    np.testing.assert_allclose(fitted.loss, best.fun, rtol=1e-8)
    np.testing.assert_allclose(theta, np.exp(best.x), rtol=1e-3)
    assert fitted.converged
    assert fitted.message == f"gradient {fitted.gradient_norm:.2g}"
    assert fitted.gradient_norm <= 1e-5 * max(1.0, fitted.loss)
    assert not fitted.interrupted


def test_the_result_is_consistent(fitted):
    likelihood = fitted.gp.log_marginal_likelihood(X, Y)
    np.testing.assert_allclose(fitted.loss, -likelihood, rtol=1e-13)
    np.testing.assert_allclose(fitted.history[0], -GP.log_marginal_likelihood(X, Y), rtol=1e-13)
    np.testing.assert_allclose(fitted.history.min(), fitted.loss, rtol=1e-12)
    assert (np.diff(fitted.history) <= 0).all()
    assert fitted.losses == (fitted.history.min(),)
    first, *rest = fitted.summary().splitlines()
    steps = len(fitted.history) - 1
    assert first.startswith(f"loss {fitted.loss:.6f} after {steps} steps, converged: gradient")
    assert [line.split()[0] for line in rest] == list(PATHS)
    assert repr(fitted) == f"FitResult({first})"


def test_restarts_are_reproducible_and_never_worse(fitted):
    once, again = (fit(restarts=2, key=jax.random.key(1)) for _ in range(2))
    assert once.gp.equals(again.gp)
    assert once.losses == again.losses
    assert len(once.losses) == 3
    assert min(once.losses) <= fitted.losses[0]
    np.testing.assert_allclose(once.loss, min(once.losses), rtol=1e-12)
    assert fit(restarts=1, key=jax.random.key(1)).losses == once.losses[:2]
    assert fit(restarts=1, key=jax.random.key(2)).losses[1] != once.losses[1]
    # Other values, of the data too: nothing is compiled again.
    size = compiled()
    fit(GP.replace(length_scale=1.1), Y[::-1].copy(), restarts=2)
    fit(GP.replace(length_scale=1.2))
    assert compiled() == size


def test_padding_changes_nothing_and_what_is_fixed_stays_to_the_bit():
    mask = ~np.isin(np.arange(12), [2, 7])
    options = {
        "fixed": ("noise_variance",),
        # The prior of what is fixed plays no part.
        "priors": {"noise_variance": types.SimpleNamespace(log_prob=None)},
        "progress": False,
    }
    result = kx.fit(GP, np.where(mask, X, np.nan), np.where(mask, Y, 1e9), **options)
    assert result.gp.noise_variance == GP.noise_variance
    best = minimum(
        lambda u: minus_log_likelihood((*np.exp(u), 0.1), X[mask], Y[mask]), np.log([1.0, 0.7])
    )
    np.testing.assert_allclose(result.loss, best.fun, rtol=1e-8)
    theta = [result.gp.hyperparameters[path] for path in PATHS[:2]]
    np.testing.assert_allclose(theta, np.exp(best.x), rtol=1e-3)


def test_float32_timestamps(x64_off, monkeypatch):
    """Seconds since 1970: the shift is taken off before rounding, and the fit is that of X."""
    monkeypatch.setattr(_inputs, "_warned_of_precision", True)
    gp = kx.GaussianProcess(1.0 * kx.SEKernel(0.7), noise_variance=0.1)
    result = kx.fit(gp, 2.0**31 + np.round(X * 2**16) / 2**16, Y, progress=False)
    assert result.gp.noise_variance.dtype == np.float32
    best = minimum(lambda u: minus_log_likelihood(np.exp(u)), np.log([1.0, 0.7, 0.1]))
    np.testing.assert_allclose(result.loss, best.fun, atol=2e-3)
    theta = [result.gp.hyperparameters[path] for path in PATHS]
    np.testing.assert_allclose(theta, np.exp(best.x), rtol=0.1)
    assert result.converged


# --- priors and fixed hyperparameters ----------------------------------------------------------


class Weight(kx.AbstractKernel):
    """A kernel with an interval, a positive value and, with its mean, a real one to fit."""

    weight: jax.Array = kx.interval(0.0, 2.0, 0.5)
    scale: jax.Array = kx.positive(0.7)

    def pairwise(self, x, y):
        return self.weight * jnp.exp(-0.5 * jnp.sum((x - y) ** 2) / self.scale**2)


def test_with_priors_it_is_the_mode_in_free_space():
    dist = pytest.importorskip("numpyro.distributions")
    gp = kx.GaussianProcess(Weight(), 0.1, mean=0.0)
    priors = {
        "kernel.weight": dist.Uniform(0.0, 2.0),
        "scale": dist.Gamma(3.0, 2.0),
        "noise_variance": dist.LogNormal(-2.0, 0.5),
        "mean.value": dist.Normal(0.5, 0.1),
    }

    known = (
        stats.uniform(0, 2),
        stats.gamma(3, scale=1 / 2),
        stats.lognorm(0.5, scale=np.exp(-2.0)),
        stats.norm(0.5, 0.1),
    )

    def minus_log_posterior(u):
        weight, scale, noise = 2 / (1 + np.exp(-u[0])), np.exp(u[1]), np.exp(u[2])
        jacobian = np.log(weight * (2 - weight) / 2) + u[1] + u[2]
        each = zip(known, (weight, scale, noise, u[3]), strict=True)
        log_prior = sum(prior.logpdf(value) for prior, value in each)
        return minus_log_likelihood((weight, scale, noise), mean=u[3]) - log_prior - jacobian

    best = minimum(minus_log_posterior, np.array([-1.0, -0.3, -2.3, 0.0]))
    result = fit(gp, priors=priors)
    np.testing.assert_allclose(result.loss, best.fun, rtol=1e-8)
    u = best.x
    expected = [2 / (1 + np.exp(-u[0])), np.exp(u[1]), np.exp(u[2]), u[3]]
    np.testing.assert_allclose(list(result.gp.hyperparameters.values()), expected, rtol=1e-3)


def test_restarts_are_drawn_from_the_priors():
    dist = pytest.importorskip("numpyro.distributions")
    gp = kx.GaussianProcess(Weight(), 0.1, mean=0.0)
    sharp = {"kernel.weight": (1.7, 1.7), "kernel.scale": (5.0, 5.0), "mean.value": (-3.0, -3.0)}
    priors = {path: dist.Uniform(low, high + 1e-9) for path, (low, high) in sharp.items()}
    problem = problem_of(gp, X, Y, priors=priors)
    drawn = [problem.fitted(u[None]) for u in problem.starts(20, jax.random.key(0))[1:]]
    for path, (value, _) in sharp.items():
        np.testing.assert_allclose([g.hyperparameters[path] for g in drawn], value, rtol=1e-8)
    spread = np.log([float(g.noise_variance) / 0.1 for g in drawn])
    assert 0.8 < spread.std() < 2.5


def test_nothing_is_free():
    result = fit(fixed=PATHS)
    assert result.gp.equals(GP)
    assert (result.converged, result.message) == (True, "nothing was free to fit")


def test_nothing_to_fit():
    with pytest.raises(kx.InputError, match=r"`X` has no real rows \(shape \(0, 1\)\).*Fix: pass"):
        kx.fit(GP, np.zeros((0, 1)), np.zeros(0))
    with pytest.raises(kx.InputError, match=r"`X` has no real rows \(shape \(12, 1\)\)"):
        fit(mask=np.zeros(12, bool))
    with pytest.raises(kx.ParameterError, match=r"'noise_variance' is 0 .*fixed=\('noise_var"):
        fit(kx.GaussianProcess(kx.SEKernel(), 0.0))


# --- ways to stop ------------------------------------------------------------------------------


def test_progress_line(capsys):
    fit(GP.replace(noise_variance=0.2))
    assert capsys.readouterr() == ("", "")
    fit(restarts=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "fit, 2 runs" in err


def test_too_few_steps(fitted):
    with pytest.warns(kx.ConvergenceWarning, match=r"^fit: stopped after 2 steps\.$"):
        result = fit(max_steps=2, restarts=2, key=jax.random.key(5))
    assert len(result.history) == 3
    assert "not converged: stopped after 2 steps" in result.summary()


def on_call(number, function, action):
    """The function, and ``action`` in its place at one of its calls."""
    calls = []

    def wrapper(*arguments):
        calls.append(arguments)
        return action(*arguments) if len(calls) == number else function(*arguments)

    return wrapper


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_ctrl_c_returns_the_best_so_far(fitted, monkeypatch):
    evaluate = Problem.evaluate
    monkeypatch.setattr(Problem, "evaluate", on_call(6, evaluate, interrupt))
    with pytest.warns(kx.ConvergenceWarning, match="interrupted: this is the best so far"):
        result = fit()
    assert (result.interrupted, result.converged) == (True, False)
    np.testing.assert_array_equal(result.history, fitted.history[: len(result.history)])
    assert 1 < len(result.history) < len(fitted.history)
    np.testing.assert_allclose(result.loss, -result.gp.log_marginal_likelihood(X, Y), rtol=1e-13)
    # Before any loss is known there is nothing to return.
    monkeypatch.setattr(Problem, "evaluate", on_call(1, evaluate, interrupt))
    with pytest.raises(KeyboardInterrupt):
        fit()


def test_an_interrupted_fit_goes_on_to_the_same_bits():
    whole = fit(restarts=2)
    with pytest.warns(kx.ConvergenceWarning):
        part = fit(restarts=2, max_steps=3)
    rest = fit(restarts=2, resume=part)
    assert rest.gp.equals(whole.gp)
    assert rest.losses == whole.losses
    np.testing.assert_array_equal(rest.history, whole.history)
    with pytest.raises(kx.ParameterError, match="expected the result of a fit with 2 runs"):
        fit(restarts=1, resume=part)


def test_a_trial_that_is_not_finite_is_rejected(fitted, monkeypatch):
    broken = lambda problem, u, index: (np.full(len(u), np.nan), np.full(u.shape, np.nan))
    monkeypatch.setattr(Problem, "evaluate", on_call(4, Problem.evaluate, broken))
    result = fit()
    assert result.converged
    assert np.isfinite(result.history).all()
    np.testing.assert_allclose(result.loss, fitted.loss, rtol=1e-9)


def test_a_line_search_that_stalls_is_said(monkeypatch):
    evaluate = Problem.evaluate

    def worse(problem, u, index):
        loss, gradient = evaluate(problem, u, index)
        return loss + 1e3 * np.abs(u).sum(axis=1), gradient

    monkeypatch.setattr(Problem, "evaluate", worse)
    with pytest.warns(
        kx.ConvergenceWarning, match="line search makes no progress, with a gradient"
    ):
        result = fit()
    assert not result.converged
    assert result.gp.equals(GP)
    assert len(result.history) == 1


@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_constant_values(constant):
    # The matrix is singular to working precision there, and rounding decides how the search ends.
    with pytest.warns(kx.ConvergenceWarning) as said:
        result = fit(y=np.full(12, constant))
    assert re.search(r"'.*' = .* is at the bound .*Fix: look whether", str(said[0].message))
    assert np.isfinite(result.loss)
    assert all(np.isfinite(value) for value in result.gp.hyperparameters.values())


class Pair(kx.AbstractKernel):
    """1 on the diagonal and c elsewhere, which is indefinite as soon as c > 1."""

    c: jax.Array = kx.real(0.3)

    def pairwise(self, x, y):
        return jnp.where(jnp.all(x == y), 1.0, self.c)


def test_a_step_out_of_the_positive_definite_region_is_shortened():
    """The first step, of length 1 from c = 0.3, ends beyond the wall at c = 1."""
    gp, y = kx.GaussianProcess(Pair(), 0.0), np.array([1.5, 1.3])
    result = kx.fit(gp, [0.0, 1.0], y, fixed=("noise_variance",), progress=False)
    loss = lambda c: -stats.multivariate_normal(np.zeros(2), [[1, c], [c, 1]]).logpdf(y)
    best = optimize.minimize_scalar(loss, bounds=(-0.99, 0.9999), method="bounded")
    np.testing.assert_allclose(result.gp.kernel.c, best.x, rtol=1e-4)
    assert result.converged
    # Beyond the wall there is nothing to follow: no NaN gets into the optimiser.
    problem = problem_of(gp, [0.0, 1.0], y, ["noise_variance"])
    value, gradient = problem.evaluate(np.ones((1, 1)), np.array([0]))
    assert (value[0], gradient[0, 0]) == (np.inf, 0.0)


def test_starts_that_fail(fitted, monkeypatch):
    nowhere = lambda problem, *_: np.full((1, problem.space.size), np.nan)
    monkeypatch.setattr(Problem, "_random_start", nowhere)
    result = fit(restarts=2)
    assert result.converged
    np.testing.assert_allclose(result.losses[0], fitted.losses[0], rtol=1e-13)
    assert np.isnan(result.losses[1:]).all()
    gp = kx.GaussianProcess(Pair(1.5), 0.0)
    text = (
        "no start gives a finite loss: start 1: the loss at the start is inf; start 2: the loss at "
        "the start is inf. Fix: choose other start values, add noise"
    )
    with pytest.raises(kx.ConvergenceError, match=text):
        kx.fit(gp, [0.0, 1.0], [1.5, 1.3], fixed=("noise_variance",), restarts=1, progress=False)


def test_the_history_is_drawn(fitted):
    axes = fitted.plot().axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), fitted.history)
