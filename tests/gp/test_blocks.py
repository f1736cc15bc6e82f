"""Observations in blocks, and predictions of operators, against the formulas in NumPy."""

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import kernax as kx

RNG = np.random.default_rng(1)
VALUES, SLOPES, POINTS = (RNG.normal(size=(n, 2)) for n in (6, 4, 5))
KERNEL = 1.5 * kx.SEKernel([0.7, 1.3])
ID, D, G = kx.Identity(), kx.Derivative, kx.Gradient()

y = np.sin(VALUES[:, 0]) * VALUES[:, 1]
dy = np.stack([np.cos(SLOPES[:, 0]) * SLOPES[:, 1], np.sin(SLOPES[:, 0])], axis=1)
SECOND = D(0, 2) + kx.Laplacian()
curved = -3.0 * y + np.zeros(6)
BLOCKS = [(ID, VALUES, y), (G, SLOPES, dy, np.full(4, 2e-3)), (SECOND, VALUES, curved, 1e-2)]
GP = kx.GaussianProcess(KERNEL, 0.01, mean=lambda X: 0.3 * X[:, 0] ** 2)


def grams(*sides):
    """Covariances of one side with another, of operators and their points: in one program."""
    each = lambda k: [kx.apply(k, a, b).gram(A, B) for (a, A), (b, B) in sides]
    return [np.asarray(K) for K in jax.jit(each)(KERNEL)]


@pytest.fixture(scope="module")
def posterior():
    return GP.condition(BLOCKS)


@pytest.fixture(scope="module")
def dense():
    """The covariance with noise, and y less its mean."""
    sites = [(op, X) for op, X, *_ in BLOCKS]
    entries = iter(grams(*((a, b) for a in sites for b in sites)))
    K = np.block([[next(entries) for _ in sites] for _ in sites])
    noise = np.concatenate([np.full(6, 0.01), np.full(8, 2e-3), np.full(6, 1e-2)])
    slopes = np.stack([0.6 * SLOPES[:, 0], 0.0 * SLOPES[:, 0]], axis=1)
    mean = np.concatenate([0.3 * VALUES[:, 0] ** 2, slopes.ravel(), np.full(6, 1.2)])
    return K + np.diag(noise), np.concatenate([y, dy.ravel(), curved]) - mean


def test_likelihood(posterior, dense):
    want = multivariate_normal(np.zeros(20), dense[0]).logpdf(dense[1])
    np.testing.assert_allclose(posterior.log_marginal_likelihood, want, rtol=1e-12)
    np.testing.assert_allclose(GP.log_marginal_likelihood(BLOCKS), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("operator", "prior", "shape"),
    [
        (ID, 0.3 * POINTS[:, 0] ** 2, (5,)),
        (G, np.stack([0.6 * POINTS[:, 0], 0.0 * POINTS[:, 0]], axis=1), (5, 2)),
        (kx.Integral(0.0, 1.0, 1), 0.3 * POINTS[:, 0] ** 2, (5,)),
    ],
    ids=["values", "gradients", "integrals"],
)
def test_predictions(posterior, dense, operator, prior, shape):
    K, residual = dense
    at = operator, POINTS
    *rows, own = grams(*((at, site[:2]) for site in BLOCKS), (at, at))
    C = np.concatenate(rows, axis=1)
    covariance = own - C @ np.linalg.solve(K, C.T)

    @jax.jit  # what they have in common is compiled once
    def predictions(points):
        return (
            posterior.mean(points, operator=operator),
            posterior.variance(points, operator=operator),
            posterior.covariance(points, operator=operator),
            posterior.sample(jax.random.key(0), points, (2000,), operator=operator),
        )

    mean, variance, found, draws = predictions(POINTS)
    assert mean.shape == shape
    np.testing.assert_allclose(
        mean, (C @ np.linalg.solve(K, residual)).reshape(shape) + prior, rtol=1e-9
    )
    np.testing.assert_allclose(variance, np.diag(covariance).reshape(shape), rtol=1e-8)
    np.testing.assert_allclose(found, covariance, atol=1e-11)
    assert draws.shape == (2000, *shape)
    error = np.sqrt(np.asarray(variance) / 2000)
    assert (np.abs(np.asarray(draws).mean(axis=0) - mean) < 5 * error).all()


def test_slope_of_the_mean_and_of_a_draw_are_those_of_differences():
    posterior = kx.GaussianProcess(kx.SEKernel(0.7), 1e-2).condition(VALUES[:, 0], y)
    at, h = np.array([0.3, -0.4]), 1e-5
    quotient = (posterior.mean(at + h) - posterior.mean(at - h)) / (2 * h)
    np.testing.assert_allclose(posterior.mean(at, operator=D(0)), quotient, rtol=1e-8)
    # A joint draw at two near points has the slope that is drawn: compare their variances.
    C = np.asarray(posterior.covariance(np.array([0.3 - 1e-3, 0.3 + 1e-3])))
    spread = (C[0, 0] - 2 * C[0, 1] + C[1, 1]) / 4e-6
    np.testing.assert_allclose(posterior.variance(at[:1], operator=D(0))[0], spread, rtol=1e-4)


def test_operators_follow_data_that_were_centred_in_64_bits(x64_off):
    """What depends on the place is moved with points far from 0."""
    far, y = 1e6 + np.linspace(0.0, 4.0, 9), np.sin(np.arange(9, dtype=np.float32) / 2)
    posterior = kx.GaussianProcess(kx.SEKernel(1.0), 1e-2).condition(far, y)
    near = kx.GaussianProcess(kx.SEKernel(1.0), 1e-2).condition(far - 1e6, y)
    at = np.array([1.0, 2.5])
    for moved, there in (
        (kx.Integral(1e6, 1e6 + 2.0), kx.Integral(0.0, 2.0)),
        ((lambda x: x[0] - 1e6) * D(0), (lambda x: x[0]) * D(0)),
    ):
        found = posterior.mean(1e6 + at, operator=moved)
        np.testing.assert_allclose(found, near.mean(at, operator=there), atol=2e-3)


def test_fit_and_gradient(dense):
    gp = kx.GaussianProcess(KERNEL, 0.01)
    at = lambda s: gp.replace(**{"kernel.left_kernel.value": s})
    loss = jax.jit(jax.value_and_grad(lambda s: -at(s).log_marginal_likelihood(BLOCKS)))
    difference = loss(1.5 + 1e-5)[0] - loss(1.5 - 1e-5)[0]
    np.testing.assert_allclose(loss(1.5)[1], difference / 2e-5, rtol=1e-6)
    result = kx.fit(gp, BLOCKS[:2], fixed="noise_variance", progress=False)
    assert result.converged
    start = multivariate_normal(np.zeros(14), dense[0][:14, :14])
    assert result.loss < -start.logpdf(np.concatenate([y, dy.ravel()]))


def test_padding_and_batches(posterior):
    padded = np.concatenate([SLOPES, [[np.nan, 0.0]]])
    blocks = [BLOCKS[0], (G, padded, np.concatenate([dy, [[7.0, 8.0]]]), 2e-3), BLOCKS[2]]
    np.testing.assert_allclose(
        GP.log_marginal_likelihood(blocks), posterior.log_marginal_likelihood, rtol=1e-12
    )
    batch = kx.BatchKernel(kx.SEKernel(), 2, batch_in_axes=0, batch_over_inputs=False)
    gp = kx.GaussianProcess(batch.replace(length_scale=[0.7, 1.9]), 0.01)
    both = [(ID, VALUES, np.stack([y, 2 * y])), (G, SLOPES, np.stack([dy, dy]))]
    found = gp.condition(both).mean(POINTS, operator=G)
    second = kx.GaussianProcess(kx.SEKernel(1.9), 0.01).condition(
        [(ID, VALUES, 2 * y), (G, SLOPES, dy)]
    )
    np.testing.assert_allclose(found[1], second.mean(POINTS, operator=G), atol=1e-10)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: GP.condition([(ID, VALUES, y[:-1])]), kx.ShapeError, r"block 0: `X` has 6 rows"),
        (lambda: GP.condition([(G, VALUES, y)]), kx.ShapeError, r"\(6, 2\), or \(12,\)"),
        (lambda: GP.condition([(ID, VALUES)]), kx.ShapeError, "block 0 has 2 entries"),
        (lambda: GP.condition(BLOCKS, y), kx.ParameterError, "go without"),
        (lambda: GP.condition(VALUES), kx.ParameterError, "`y` is missing"),
        (lambda: GP.condition([(D(2), VALUES, y)]), kx.ShapeError, "dimension 2"),
        (lambda: GP.condition([(ID, VALUES, y, -1.0)]), kx.ParameterError, "noise variance is -1"),
        (lambda: GP.condition([(ID, VALUES, y * np.nan)]), kx.InputError, "6 NaN"),
        (
            lambda: kx.GaussianProcess(kx.Matern32Kernel()).condition([(D(0, 2), VALUES, y)]),
            kx.ParameterError,
            "Matern32Kernel is once",
        ),
        (lambda: kx.fit(GP, BLOCKS, start="data"), kx.ParameterError, "in blocks"),
    ],
)
def test_wrong_blocks_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_what_blocks_cannot_do_says_so(posterior, tmp_path):
    with pytest.raises(kx.ParameterError, match="`update` is for"):
        posterior.update(VALUES, y)
    with pytest.raises(kx.ParameterError, match="`operator` is 3"):
        posterior.mean(POINTS, operator=3)
    with pytest.raises(kx.ParameterError, match="observation=True"):
        posterior.variance(POINTS, operator=G, observation=True)
    with pytest.raises(kx.FormatError, match="cannot be saved"):
        kx.save(tmp_path / "model.json", posterior)
