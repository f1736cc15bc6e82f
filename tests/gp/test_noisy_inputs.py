"""Noise on the inputs: the likelihood against NumPy, predictions against quadrature over it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import kernax as kx
from kernax.gp import _noisy_inputs

RNG = np.random.default_rng(5)
N, D = 8, 2
X, Y = RNG.normal(size=(N, D)), RNG.normal(size=N)
XS = RNG.normal(size=(3, D))
S, SCALES, NOISE, SLOPE = np.array([0.02, 0.1]), np.array([0.8, 1.4]), 0.05, 0.3
GP = kx.GaussianProcess(
    1.7 * kx.SEKernel(SCALES), NOISE, mean=kx.LinearMean(SLOPE, 0.1), input_variance=S
)


def covariances(x, y):
    """k, dk/dx_j and d2k/dx_j2 of the kernel above."""
    u = (x[:, None, :] - y[None, :, :]) / SCALES
    k = 1.7 * np.exp(-0.5 * (u**2).sum(axis=-1))
    return k, -u / SCALES * k[..., None], (u**2 - 1) / SCALES**2 * k[..., None]


STEPS = (1.0, 1.0, 0.5)


def system(X=X, Y=Y, steps=STEPS):
    """The covariance and the residual at the end of the iteration, in NumPy."""
    K, slope, bend = covariances(X, X)
    K = K + NOISE * np.eye(len(X))
    residual = Y - (SLOPE * X.sum(axis=1) + 0.1)
    added = np.full(len(X), (S * (1.7 / SCALES**2 + SLOPE**2)).sum())
    shift = np.zeros(len(X))
    for t in steps:
        a = np.linalg.solve(K + np.diag(added), residual - shift)
        slopes = np.einsum("ijd,j->id", slope, a) + SLOPE
        shift = (1 - t) * shift + t * 0.5 * np.einsum("ijd,j->id", bend, a) @ S
        added = (1 - t) * added + t * slopes**2 @ S
    return K + np.diag(added), residual - shift


def test_likelihood_and_prediction():
    K, residual = system()
    posterior = GP.condition(X, Y)
    want = multivariate_normal(np.zeros(N), K).logpdf(residual)
    np.testing.assert_allclose(posterior.log_marginal_likelihood, want, rtol=1e-11)
    np.testing.assert_allclose(GP.log_marginal_likelihood(X, Y), want, rtol=1e-11)
    cross = covariances(XS, X)[0]
    mean = cross @ np.linalg.solve(K, residual) + SLOPE * XS.sum(axis=1) + 0.1
    np.testing.assert_allclose(posterior.mean(XS), mean, rtol=1e-10)
    variance = 1.7 - np.einsum("ij,ji->i", cross, np.linalg.solve(K, cross.T))
    np.testing.assert_allclose(posterior.variance(XS), variance, rtol=1e-10)


def test_slopes_have_settled():
    """That more rounds change nothing that matters."""
    x = RNG.uniform(-2, 2, size=(40, D))
    moved = x + np.sqrt(S) * RNG.normal(size=x.shape)
    y = np.sin(1.5 * moved[:, 0]) + 0.5 * moved[:, 1] ** 2 + 0.2 * RNG.normal(size=40)
    systems = system(x, y), system(x, y, (1.0,) * 40)
    first, last = (multivariate_normal(np.zeros(40), K).logpdf(r) for K, r in systems)
    assert abs(first - last) < 0.1


def test_gradient():
    u, restore = kx.unconstrained(GP)
    value, h = lambda u: restore(u).log_marginal_likelihood(X, Y), 1e-5

    @jax.jit
    def both(u):
        steps = h * jnp.eye(len(u))
        values = jax.lax.map(value, jnp.concatenate([u[None] + steps, u[None] - steps]))
        up, down = values.reshape(2, -1)
        return jax.grad(value)(u), (up - down) / (2 * h)

    found, quotients = both(u)
    np.testing.assert_allclose(found, quotients, rtol=1e-6, atol=1e-8)


def test_many_points_in_parts(monkeypatch):
    """The blocks and the steps taken again, of many points, against all at once, of few."""
    u, restore = kx.unconstrained(GP)
    loss = jax.value_and_grad(lambda u: restore(u).log_marginal_likelihood(X, Y))
    at_once = jax.jit(loss)(u)
    monkeypatch.setattr(_noisy_inputs, "BLOCK", 3 * N)
    in_parts = jax.jit(lambda u: loss(u))(u)
    for one, other in zip(in_parts, at_once, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_memory_of_a_gradient():
    """In matrices: some ten of optimised code, and fifty where every step is kept."""
    n = 600
    u, restore = kx.unconstrained(GP)
    x, y = RNG.normal(size=(n, D)), RNG.normal(size=n)
    loss = jax.jit(jax.grad(lambda u: restore(u).log_marginal_likelihood(x, y)))
    assert loss.lower(u).compile().memory_analysis().temp_size_in_bytes < 20 * 8 * n**2


def test_padding_and_batches():
    padded = np.concatenate([X, np.full((2, D), np.nan)]), np.concatenate([Y, [np.nan, 7.0]])
    want = GP.log_marginal_likelihood(X, Y)
    np.testing.assert_allclose(GP.log_marginal_likelihood(*padded), want, rtol=1e-12)
    kernel = kx.BatchKernel(1.7 * kx.SEKernel(SCALES), 2, 0)
    other = [0.3, 0.01]
    batch = kx.GaussianProcess(kernel, NOISE, mean=GP.mean, input_variance=np.stack([S, other]))
    both = np.stack([X, X[::-1]])
    found = batch.condition(both, np.stack([Y, Y]))
    own = kx.GaussianProcess(GP.kernel, NOISE, mean=GP.mean, input_variance=other)
    second = own.condition(X[::-1], Y)
    likelihoods = [want, second.log_marginal_likelihood]
    np.testing.assert_allclose(found.log_marginal_likelihood, likelihoods, rtol=1e-12)
    predict = jax.jit(
        lambda p, at: (p.mean(at, input_variance=S), p.variance(at, input_variance=S))
    )
    pairs = zip(predict(found, np.stack([XS, XS])), predict(second, XS), strict=True)
    for each, one in pairs:
        np.testing.assert_allclose(each[1], one, rtol=1e-9)


@pytest.mark.parametrize("kernel", [1.3 * kx.SEKernel(0.9), kx.Matern52Kernel(1.2)])
def test_moments_at_a_noisy_point(kernel):
    """Gauss-Hermite over the noise; what is left out is of second order in its variance."""
    posterior = kx.GaussianProcess(kernel, 0.01).condition(X[:, 0], Y)
    node, weight = np.polynomial.hermite_e.hermegauss(20)
    weight, at = weight / weight.sum(), np.array([0.2, -0.5])

    @jax.jit
    def certain(points):
        return posterior.mean(points), posterior.variance(points)

    @jax.jit
    def noisy(s):
        predict = functools.partial(posterior.variance, at, input_variance=s)
        return posterior.mean(at, input_variance=s), predict(), predict(observation=True)

    def errors(s):
        points = (at[:, None] + np.sqrt(s) * node).ravel()
        means, variances = (np.asarray(values).reshape(2, -1) for values in certain(points))
        mean = means @ weight
        variance = variances @ weight + means**2 @ weight - mean**2
        return np.abs([noisy(s)[0] - mean, noisy(s)[1] - variance])

    coarse, fine = errors(4e-4), errors(1e-4)
    assert (coarse < 1e-4).all()
    assert (fine < coarse / 8).all()
    rows = np.array([[1e-4], [4e-4]])
    both = posterior.variance(at, input_variance=rows)
    one = [noisy(s)[1][i] for i, s in enumerate(rows[:, 0])]
    np.testing.assert_allclose(both, one, rtol=1e-10)
    _, variance, seen = noisy(1e-4)
    np.testing.assert_allclose(seen - variance, 0.01, rtol=1e-9)


def test_fit_finds_the_noise_of_each_dimension():
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, size=(150, 2))
    y = np.sin(1.5 * x[:, 0]) + np.cos(1.5 * x[:, 1]) + 0.05 * rng.normal(size=150)
    seen = x + np.array([0.2, 0.0]) * rng.normal(size=(150, 2))
    gp = kx.GaussianProcess(kx.SEKernel(1.2), 0.01, input_variance=[0.02, 0.02])
    fitted = kx.fit(gp, seen, y, fixed="kernel", progress=False).gp
    first, second = np.sqrt(np.asarray(fitted.input_variance))
    assert 0.14 < first < 0.26
    assert second < 0.06


def test_draws_of_observations_move_the_inputs():
    gp = kx.GaussianProcess(kx.SEKernel(0.5), 1e-4, mean=lambda X: 2.0 * X[:, 0], input_variance=S)
    draws = gp.sample(jax.random.key(0), X, (4000,), observation=True)
    want = 1.0 + 1e-4 + 4.0 * S[0]
    np.testing.assert_allclose(np.var(draws, axis=0), want, rtol=0.15)
    some = jax.eval_shape(lambda X: gp.sample(jax.random.key(0), X, (2, 3)), X)
    assert some.shape == (2, 3, N)


def test_saved(tmp_path):
    posterior = GP.condition(X, Y)
    kx.save(tmp_path / "model.json", posterior)
    np.testing.assert_array_equal(kx.load(tmp_path / "model.json").mean(XS), posterior.mean(XS))


def test_refused():
    posterior = kx.GaussianProcess(kx.SEKernel(), 0.1).condition(X, Y)
    with pytest.raises(kx.ParameterError, match="Matern12"):
        kx.GaussianProcess(kx.Matern12Kernel(), input_variance=0.1).condition(X, Y)
    with pytest.raises(kx.ParameterError, match="expected a finite value >= 0"):
        kx.GaussianProcess(kx.SEKernel(), input_variance=-0.1)
    with pytest.raises(kx.ShapeError, match=r"`input_variance` has shape \(3,\)"):
        kx.GaussianProcess(kx.SEKernel(), input_variance=[0.1] * 3).condition(X, Y)
    with pytest.raises(kx.ShapeError, match=r"`input_variance` has shape \(3,\)"):
        posterior.mean(XS, input_variance=[0.1] * 3)
    with pytest.raises(kx.ParameterError, match="Matern32"):
        kx.GaussianProcess(kx.Matern32Kernel()).condition(X, Y).variance(XS, input_variance=0.1)
    with pytest.raises(kx.ParameterError, match="`operator` is for the function itself"):
        posterior.mean(XS, operator=kx.Gradient(), input_variance=0.1)
    with pytest.raises(kx.ParameterError, match="several targets"):
        GP.condition(X, np.stack([Y, Y], axis=1))
    with pytest.raises(kx.ParameterError, match="these are blocks"):
        GP.condition([(kx.Identity(), X, Y)])
    for call in (lambda p: p.update(X, Y), lambda p: p.sample_paths(jax.random.key(0))):
        with pytest.raises(kx.ParameterError, match="an `input_variance`"):
            call(GP.condition(X, Y))
