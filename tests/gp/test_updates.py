"""Leave-one-out, updates, and several targets: each against conditioning anew."""

import jax
import numpy as np
import pytest
from scipy import stats

import kernax as kx

RNG = np.random.default_rng(8)
X, Y = RNG.normal(size=(9, 2)), RNG.normal(size=9)
XS = RNG.normal(size=(4, 2))
KERNEL = 1.5 * kx.Matern52Kernel([0.8, 1.4]) + kx.WhiteNoiseKernel(0.05)
GP = kx.GaussianProcess(KERNEL, 0.1, mean=kx.LinearMean([0.3, -0.2], 0.5))
TOL = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(scope="module")
def whole():
    """What most updates end at: of as many points as the others, so that all share programs."""
    return GP.condition(X, Y)


def predictions(posterior):
    return (
        posterior.mean(XS),
        posterior.covariance(XS),
        posterior.variance(XS, observation=True),
        posterior.log_marginal_likelihood,
        *posterior.leave_one_out(),
    )


def same(found, expected):
    for a, b in zip(predictions(found), predictions(expected), strict=True):
        np.testing.assert_allclose(a, b, **TOL)


def test_leave_one_out_is_refitting_without_one(whole):
    found = whole.leave_one_out()
    for i in range(9):
        keep = np.arange(9) != i
        rest = GP.condition(X[keep], Y[keep])
        mean, variance = (
            rest.mean(X[i : i + 1])[0],
            rest.variance(X[i : i + 1], observation=True)[0],
        )
        np.testing.assert_allclose(found.mean[i], mean, **TOL)
        np.testing.assert_allclose(found.variance[i], variance, **TOL)
        density = stats.norm(mean, np.sqrt(variance)).logpdf(Y[i])
        np.testing.assert_allclose(found.log_density[i], density, **TOL)
    column = GP.condition(X, Y[:, None]).leave_one_out()
    assert column.mean.shape == column.variance.shape == (9, 1)


def test_updates_are_conditioning_on_everything(whole):
    first = GP.condition(X[:7], Y[:7])
    same(first.update(X[7:], Y[7:]), whole)
    # One point at a time, and nothing at all.
    posterior = first.update(X[7:8], Y[7:8]).update(X[8:], Y[8:]).update(X[:0], Y[:0])
    same(posterior, whole)
    assert posterior.data.X.shape == (9, 2)


def test_updates_with_padding_on_both_sides(whole):
    rows = np.insert(np.arange(9), [2, 7], -1)
    real = rows >= 0
    padded, y = np.where(real[:, None], X[rows], np.nan), Y[rows]
    found = GP.condition(padded[:7], y[:7]).update(padded[7:], y[7:])
    assert np.isnan(padded).any(axis=1).nonzero()[0].tolist() == [2, 8]
    for a, b in zip(predictions(found)[:4], predictions(whole)[:4], strict=True):
        np.testing.assert_allclose(a, b, **TOL)
    np.testing.assert_allclose(found.leave_one_out().mean[real], whole.leave_one_out().mean)
    masked = GP.condition(X[rows][:7], y[:7], mask=real[:7])
    masked = masked.update(X[rows][7:], y[7:], mask=real[7:])
    np.testing.assert_allclose(masked.mean(XS), whole.mean(XS), **TOL)


def test_updates_with_one_noise_per_point():
    noise = RNG.uniform(0.1, 0.4, 9)
    gp = GP.replace(noise_variance=0.1)
    of = lambda part: kx.GaussianProcess(gp.kernel, noise[part], mean=gp.mean)
    found = of(slice(6)).condition(X[:6], Y[:6]).update(X[6:], Y[6:], noise_variance=noise[6:])
    expected = of(slice(None)).condition(X, Y)
    np.testing.assert_allclose(found.mean(XS), expected.mean(XS), **TOL)
    np.testing.assert_allclose(found.variance(XS), expected.variance(XS), **TOL)
    np.testing.assert_array_equal(found.gp.noise_variance, noise)
    with pytest.raises(kx.ParameterError, match="`noise_variance` is needed in an update"):
        of(slice(6)).condition(X[:6], Y[:6]).update(X[6:], Y[6:])
    with pytest.raises(kx.ParameterError, match="leave it out"):
        GP.condition(X[:6], Y[:6]).update(X[6:], Y[6:], noise_variance=noise[6:])


def test_updates_that_do_not_fit(whole):
    with pytest.raises(kx.ShapeError, match="`X_new` has dimension 1"):
        whole.update(X[:2, :1], Y[:2])
    with pytest.raises(kx.ShapeError, match="in another form than the y conditioned on"):
        whole.update(X[:2], Y[:2, None])
    with pytest.raises(kx.ShapeError, match="`X` has 2 rows"):
        whole.update(X[:2], Y[:3])


def test_an_update_with_duplicates_needs_jitter_and_says_so():
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.0)
    with pytest.warns(kx.NumericalWarning, match="singular to working precision"):
        posterior = gp.condition(X[:4], Y[:4]).update(X[:2], Y[:2])
    assert posterior.status == kx.Status.JITTERED
    np.testing.assert_allclose(posterior.mean(X[:4]), Y[:4], atol=1e-5)


def test_updating_inside_jit_and_grad(whole):
    def total(y):
        return GP.condition(X[:5], y[:5]).update(X[5:], y[5:]).log_marginal_likelihood

    # Of log N(y; m, K) the slope in y is -K^-1 (y - m).
    np.testing.assert_allclose(jax.jit(jax.grad(total))(Y), -whole.weights, **TOL)


def test_targets_share_one_factorisation():
    targets = np.stack([Y, Y[::-1], np.cos(Y)], axis=1)
    together = GP.condition(X, targets)
    apart = [GP.condition(X, y) for y in targets.T]
    stack = lambda name: np.stack([getattr(p, name)(XS) for p in apart], axis=1)
    np.testing.assert_allclose(together.mean(XS), stack("mean"), **TOL)
    np.testing.assert_allclose(together.variance(XS), stack("variance"), **TOL)
    np.testing.assert_allclose(together.covariance(XS), apart[0].covariance(XS), **TOL)
    total = sum(float(p.log_marginal_likelihood) for p in apart)
    np.testing.assert_allclose(together.log_marginal_likelihood, total, rtol=1e-12)
    np.testing.assert_allclose(GP.log_marginal_likelihood(X, targets), total, rtol=1e-12)
    left_out = together.leave_one_out()
    for j, one in enumerate(apart):
        for found, expected in zip(left_out, one.leave_one_out(), strict=True):
            np.testing.assert_allclose(found[:, j], expected, **TOL)
    draws = together.sample(jax.random.key(0), XS, (2000,))
    assert draws.shape == (2000, 4, 3)
    error = np.sqrt(np.diag(together.covariance(XS)).max() / 2000)
    np.testing.assert_allclose(draws.mean(axis=0), together.mean(XS), atol=5 * error)
    updated = GP.condition(X[:5], targets[:5]).update(X[5:], targets[5:])
    np.testing.assert_allclose(updated.mean(XS), together.mean(XS), **TOL)


def test_the_gradient_of_targets_is_the_sum_of_theirs():
    targets = np.stack([Y, Y[::-1]], axis=1)
    slope = jax.grad(lambda gp, y: gp.log_marginal_likelihood(X, y))
    found, parts = jax.jit(lambda gp: (slope(gp, targets), [slope(gp, y) for y in targets.T]))(GP)
    for path, slope in found.hyperparameters.items():
        total = sum(part.hyperparameters[path] for part in parts)
        np.testing.assert_allclose(slope, total, rtol=1e-10, atol=1e-12)
