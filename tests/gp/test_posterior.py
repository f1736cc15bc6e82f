"""The posterior: predictions, their bounds, padding, samples and what is said on failure."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

import kernax as kx
from kernax.gp import _predict
from tests.gp.test_process import GP, SE, X, Y, check_moments, se
from tests.table import CASES, gram_reference

EPS = np.finfo(float).eps
XS = np.random.default_rng(12).normal(size=(4, 2))


def reference(K, K_cross, K_test, noise, y, mean=0.0, mean_test=0.0):
    """Mean and covariance by Rasmussen and Williams, equations 2.25 and 2.26."""
    solution = np.linalg.solve(K + noise, np.column_stack([y - mean, K_cross]))
    return mean_test + K_cross.T @ solution[:, 0], K_test - K_cross.T @ solution[:, 1:]


def predictions(posterior, points):
    """Every kind of prediction, by name."""
    return {
        "mean": posterior.mean(points),
        "variance": posterior.variance(points),
        "covariance": posterior.covariance(points),
        "sample": posterior.sample(jax.random.key(5), points, (2, 3)),
    }


def test_repr_is_a_line():
    posterior = GP.condition(X, Y)
    assert repr(posterior) == f"Posterior({GP!r}, X of shape {X.shape})"
    assert repr(posterior.sample_paths(jax.random.key(0), (2,))) == f"Paths({GP!r}, shape=(2,))"
    assert "noise_variance=None" in repr(jax.tree.map(lambda _: None, GP))
    noisy = kx.GaussianProcess(SE, solver=kx.Dense(), input_variance=0.5)
    assert repr(noisy).endswith("mean=ZeroMean, solver=Dense(), input_variance=0.5)")


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ard of white noise", "sum in a product"])
def test_against_numpy(name):
    case, noise = CASES[name], 0.3
    gp = kx.GaussianProcess(case.kernel, noise, mean=kx.LinearMean([0.5, -0.2], 0.1))
    line = lambda X: X @ [0.5, -0.2] + 0.1
    latent = lambda A, B: gram_reference(case, A, B)
    extra = gram_reference(case, X) - latent(X, X) + noise * np.eye(6)
    mean, C = reference(latent(X, X), latent(X, XS), latent(XS, XS), extra, Y, line(X), line(XS))
    posterior = gp.condition(X, Y)
    tol = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(posterior.mean(XS), mean, **tol)
    np.testing.assert_allclose(posterior.covariance(XS), C, **tol)
    value = gp.log_marginal_likelihood(X, Y)
    np.testing.assert_allclose(posterior.log_marginal_likelihood, value, rtol=1e-13)
    assert posterior.jitter == 0.0
    assert posterior.status == kx.Status.OK
    if case.noise is not None:
        np.testing.assert_allclose(posterior.variance(XS), np.diag(C), **tol)
        noisy = C + gram_reference(case, XS) - latent(XS, XS) + noise * np.eye(4)
        np.testing.assert_allclose(posterior.variance(XS, observation=True), np.diag(noisy), **tol)
        np.testing.assert_allclose(posterior.covariance(XS, observation=True), noisy, **tol)


def test_covariance_is_exactly_symmetric():
    C = np.asarray(GP.condition(X, Y).covariance(np.random.default_rng(1).normal(size=(20, 2))))
    np.testing.assert_array_equal(C, C.T)


def test_against_scikit_learn_and_tinygp():
    import tinygp

    posterior = kx.GaussianProcess(1.5 * kx.Matern32Kernel(0.8), 0.1).condition(X, Y)
    kernel = sk.ConstantKernel(1.5) * sk.Matern(0.8, nu=1.5)
    other = GaussianProcessRegressor(kernel, alpha=0.1, optimizer=None).fit(X, Y)
    mean, C = other.predict(XS, return_cov=True)
    np.testing.assert_allclose(posterior.mean(XS), mean, rtol=1e-11)
    np.testing.assert_allclose(posterior.covariance(XS), C, rtol=1e-10, atol=1e-13)
    value = posterior.log_marginal_likelihood
    np.testing.assert_allclose(value, other.log_marginal_likelihood_value_, rtol=1e-12)

    @jax.jit
    def tinygp_says(X, y, points):
        distance = tinygp.kernels.distance.L2Distance()
        kernel = 1.5 * tinygp.kernels.Matern32(scale=0.8, distance=distance)
        prior = tinygp.GaussianProcess(kernel, X, diag=0.1)
        peer = prior.condition(y, points, diag=0.0).gp
        return prior.log_probability(y), peer.mean, peer.variance

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        peer = tinygp_says(X, Y, XS)
    ours = value, posterior.mean(XS), posterior.variance(XS)
    for number, expected in zip(ours, peer, strict=True):
        np.testing.assert_allclose(number, expected, rtol=1e-11)


def test_one_point_by_hand():
    gp = kx.GaussianProcess(2.0 * kx.SEKernel(0.5), 0.1, mean=0.4)
    posterior = gp.condition([0.3], [1.2])
    k = 2.0 * np.exp(-0.5 * (0.2 / 0.5) ** 2)
    mean, variance = posterior.mean([0.5]), posterior.variance([0.5])
    np.testing.assert_allclose(mean, [0.4 + k / 2.1 * 0.8], rtol=1e-14)
    np.testing.assert_allclose(variance, [2.0 - k**2 / 2.1], rtol=1e-14)
    # Every output keeps its rank with one point and one test point.
    assert mean.shape == variance.shape == (1,)
    at = np.array([0.5])
    assert jax.eval_shape(posterior.covariance, at).shape == (1, 1)
    assert jax.eval_shape(posterior.sample, jax.random.key(0), at).shape == (1,)
    value = posterior.log_marginal_likelihood
    assert value.shape == ()
    expected = -0.5 * (0.8**2 / 2.1 + np.log(2 * np.pi * 2.1))
    np.testing.assert_allclose(value, expected, rtol=1e-14)


@pytest.mark.parametrize("gap", [0.0, 1e-15])
def test_two_copies_of_a_point(gap):
    s2, noise, (y1, y2) = 2.0, 0.1, (1.2, -0.7)
    gp = kx.GaussianProcess(s2 * kx.SEKernel(0.5), noise)
    posterior = gp.condition([[0.3], [0.3 + gap]], [y1, y2])
    mean = s2 * (y1 + y2) / (2 * s2 + noise)
    np.testing.assert_allclose(posterior.mean([[0.3]]), [mean], rtol=1e-10)
    variance = s2 * noise / (2 * s2 + noise)
    np.testing.assert_allclose(posterior.variance([[0.3]]), [variance], rtol=1e-10)


def test_the_parts_of_a_sum_add_up():
    left, right = 1.5 * kx.SEKernel(0.8), kx.LinearKernel(0.7)
    posterior = kx.GaussianProcess(left + right, 0.1, mean=0.3).condition(X, Y)
    parts = [posterior.mean(XS, kernel=part) for part in (left, right)]
    np.testing.assert_allclose(0.3 + parts[0] + parts[1], posterior.mean(XS), rtol=1e-12)
    K, K_cross = se(X, X) + 0.7 * X @ X.T, 0.7 * X @ XS.T
    mean, C = reference(K, K_cross, 0.7 * XS @ XS.T, 0.1 * np.eye(6), Y, 0.3)
    np.testing.assert_allclose(parts[1], mean, rtol=1e-11)
    np.testing.assert_allclose(posterior.variance(XS, kernel=right), np.diag(C), rtol=1e-10)
    np.testing.assert_allclose(posterior.covariance(XS, kernel=right), C, rtol=1e-9, atol=1e-13)


def test_no_noise_interpolates():
    posterior = kx.GaussianProcess(SE, 0.0).condition(X, Y)
    np.testing.assert_allclose(posterior.mean(X), Y, rtol=1e-9)
    np.testing.assert_allclose(posterior.variance(X), np.zeros(6), atol=1e-13)
    assert posterior.jitter == 0.0


def test_variance_is_between_zero_and_the_prior():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        points, values = rng.normal(size=(6, 2)) * 10 ** rng.uniform(-3, 1), rng.normal(size=6)
        gp = GP.replace(length_scale=10 ** rng.uniform(-1, 1), noise_variance=1e-12)
        posterior = gp.condition(points, values)
        for tests in (points[:4], points[:4] + 1e-6, rng.normal(size=(4, 2))):
            variance = np.asarray(posterior.variance(tests))
            assert (variance >= 0).all()
            assert (variance <= 1.5 * (1 + 10 * EPS)).all()
        # One more observation never makes it larger, up to rounding.
        fewer = gp.condition(points, values, mask=np.arange(6) < 5).variance(tests)
        assert (variance <= np.asarray(fewer) + 1e-9).all()


# --- forms -------------------------------------------------------------------------------------


def test_predictions_come_back_in_the_form_of_y():
    row, column = GP.condition(X, Y), GP.condition(X.tolist(), Y[:, None])
    key = jax.random.key(0)
    for predict in ("mean", "variance"):
        value = getattr(row, predict)(XS)
        assert value.shape == (4,)
        np.testing.assert_array_equal(getattr(column, predict)(XS.tolist()), value[:, None])
    draws = row.sample(key, XS, (2, 3))
    assert draws.shape == (2, 3, 4)
    np.testing.assert_array_equal(column.sample(key, XS, (2, 3)), draws[..., None])
    np.testing.assert_array_equal(row.sample(key, XS, (2, 3)), draws)
    assert not np.array_equal(row.sample(jax.random.key(1), XS, (2, 3)), draws)


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (
            XS[0],
            r"`Xs` has dimension 1 \(shape \(2,\)\).*points of dimension 2. Fix: pass \(m, 2\)",
        ),
        (np.ones((4, 3)), r"`Xs` has dimension 3 \(shape \(4, 3\)\), but the process was cond"),
        (np.ones((1, 4, 2)), r"`Xs` has shape \(1, 4, 2\), expected \(n, d\) or \(n,\)"),
    ],
)
def test_wrong_test_points(points, text):
    posterior = GP.condition(X, Y)
    for predict in (posterior.mean, posterior.variance, posterior.covariance):
        with pytest.raises(kx.ShapeError, match=text):
            predict(points)
    with pytest.raises(kx.ShapeError, match=text):
        jax.jit(posterior.mean)(points)


def test_single_and_double_precision_together():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), GP)
    posterior = single.condition(X.astype(np.float32), Y.astype(np.float32))
    assert posterior.weights.dtype == np.float32
    low, high = posterior.mean(XS.astype(np.float32)), posterior.mean(XS)
    assert (low.dtype, high.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(low, GP.condition(X, Y).mean(XS), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(high, low, rtol=1e-4, atol=1e-5)
    assert posterior.variance(XS).dtype == np.float64
    assert single.condition(X, Y).weights.dtype == np.float64
    empty = single.condition(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    assert empty.variance(XS.astype(np.float32)).dtype == np.float32


def test_noise_of_new_points():
    posterior = kx.GaussianProcess(SE, np.full(6, 0.1)).condition(X, Y)
    np.testing.assert_allclose(posterior.mean(XS), GP.condition(X, Y).mean(XS), rtol=1e-12)
    text = "`observation=True` with one `noise_variance` per training point.*Fix: add it"
    with pytest.raises(kx.ParameterError, match=text):
        posterior.variance(XS, observation=True)


# --- padding, and no points at all -------------------------------------------------------------


def test_padding_changes_nothing():
    unpadded = GP.condition(X, Y)
    rows = np.insert(np.arange(6), [0, 3, 6], [-1, -1, -1])
    mask = rows >= 0
    for filler, options in ((np.nan, {}), (np.inf, {"mask": mask}), (1e30, {"mask": mask})):
        Xp, yp = np.where(mask[:, None], X[rows], filler), np.where(mask, Y[rows], filler)
        posterior = GP.condition(Xp, yp, **options)
        assert posterior.status == kx.Status.OK
        value = posterior.log_marginal_likelihood
        np.testing.assert_allclose(value, unpadded.log_marginal_likelihood, rtol=1e-13)
        np.testing.assert_allclose(posterior.weights[mask], unpadded.weights, rtol=1e-11)
    for name, value in predictions(posterior, XS).items():
        expected = predictions(unpadded, XS)[name]
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-14)


def test_a_padded_test_point_gives_nan():
    posterior, padded = GP.condition(X, Y), XS.copy()
    padded[1, 0] = np.nan
    real = [0, 2, 3]
    for name, value in predictions(posterior, padded).items():
        expected, value = np.asarray(predictions(posterior, XS)[name]), np.asarray(value)
        inside = np.ix_(real, real) if name == "covariance" else (..., real)
        assert np.isnan(value).sum() == {"covariance": 7, "sample": 6}.get(name, 1)
        if name == "sample":
            assert np.isfinite(value[inside]).all()
        else:
            np.testing.assert_allclose(value[inside], expected[inside], rtol=1e-13)


def test_without_data_it_is_the_prior():
    empty = GP.condition(np.zeros((0, 2)), np.zeros(0))
    masked = GP.condition(np.vstack([X, X[:3]]), np.append(Y, Y[:3]), mask=np.zeros(9, bool))
    for posterior in (empty, masked):
        assert posterior.status == kx.Status.EMPTY
        assert posterior.log_marginal_likelihood == 0.0
        np.testing.assert_array_equal(posterior.mean(XS), np.zeros(4))
        np.testing.assert_allclose(posterior.variance(XS), np.full(4, 1.5), rtol=1e-15)
    np.testing.assert_allclose(empty.covariance(XS), se(XS, XS), rtol=1e-14)
    key = jax.random.key(0)
    np.testing.assert_allclose(empty.sample(key, XS), GP.sample(key, XS), rtol=1e-12)


# --- transformations ---------------------------------------------------------------------------


def test_inside_jit_vmap_and_grad():
    def mean(gp, y, points):
        return gp.condition(X, y).mean(points)

    eager = mean(GP, Y, XS)

    @jax.jit
    def everything(gp, y, points):
        both = jax.vmap(mean, (None, 0, None))(gp, jnp.stack([y, 2 * y]), points)
        jacobian = jax.jacobian(mean, argnums=1)(gp, y, points)
        return mean(gp, y, points), jacobian, both, gp.condition(X, Y)

    value, J, both, posterior = everything(GP, Y, XS)
    np.testing.assert_allclose(value, eager, rtol=1e-13)
    np.testing.assert_allclose(J @ Y, eager, rtol=1e-12)  # the mean is linear in y
    np.testing.assert_allclose(both, np.stack([eager, 2 * eager]), rtol=1e-12)
    # A posterior is a pytree: it may leave a jitted function.
    np.testing.assert_allclose(posterior.mean(XS), eager, rtol=1e-13)
    posterior = GP.condition(X, Y)
    slope = jax.jit(jax.grad(lambda x: posterior.mean(x).sum() + posterior.variance(x).sum()))
    gradient = slope(jnp.asarray(XS))
    step = np.zeros_like(XS)
    step[2, 1] = 1e-6
    up, down = (posterior.mean(x) + posterior.variance(x) for x in (XS + step, XS - step))
    np.testing.assert_allclose(gradient[2, 1], (up - down)[2] / 2e-6, rtol=1e-6)


def test_nothing_is_compiled_again():
    def sizes_after(scale):
        posterior = GP.replace(length_scale=scale).condition(X, Y)
        posterior.mean(XS), posterior.variance(XS)
        functions = (_predict.condition_state, _predict.mean, _predict.variance)
        return [function._cache_size() for function in functions]

    assert sizes_after(0.7) == sizes_after(0.9) == sizes_after(1.1)


# --- failures ----------------------------------------------------------------------------------


def test_exact_duplicates_without_noise():
    twice = np.vstack([X[:3], X[:3]])
    gp = kx.GaussianProcess(SE, 0.0)
    with pytest.warns(
        kx.NumericalWarning, match=r"singular to working precision: .*e-15 was added"
    ):
        posterior = gp.condition(twice, np.tile(Y[:3], 2))
    assert posterior.status == kx.Status.JITTERED
    np.testing.assert_allclose(posterior.jitter, 6 * EPS * 1.5, rtol=1e-12)
    np.testing.assert_allclose(posterior.mean(X[:3]), Y[:3], rtol=1e-8)
    # The size of the jitter is that of the real points, whatever the others are.
    gp, padded = kx.GaussianProcess(SE, np.append(np.zeros(6), 50.0)), np.vstack([twice, X[:1]])
    with pytest.warns(kx.NumericalWarning, match="singular"):
        masked = gp.condition(padded, np.append(np.tile(Y[:3], 2), 0), mask=np.arange(7) < 6)
    assert masked.jitter == posterior.jitter


def test_a_variance_that_comes_out_negative_is_said():
    posterior = GP.condition(X, Y)
    broken = eqx.tree_at(lambda p: p.factor.first, posterior, 0.5 * posterior.factor.first)
    # Half the factor explains four times as much variance, of 1.5 in all.
    explained = 4 * (1.5 - np.asarray(posterior.variance(X[:4])))
    amount = np.max(explained - 1.5) / 1.5
    assert amount > 0.1
    text = f"a predictive variance came out negative, by {amount:.3g} of the prior variance"
    with pytest.warns(kx.NumericalWarning, match=text):
        variance = broken.variance(X[:4])
    assert (np.asarray(variance) >= 0).all()
    assert (np.asarray(variance) == 0).any()
    with pytest.raises(
        kx.NotPSDError, match=r"4 x 4 .* not positive semi-definite.*Points . and ."
    ):
        broken.sample(jax.random.key(0), X[:4])


def test_moments_of_samples():
    posterior = GP.condition(X, Y)
    mean, C = reference(se(X, X), se(X, XS), se(XS, XS), 0.1 * np.eye(6), Y)
    draws = np.asarray(posterior.sample(jax.random.key(8), XS, (50_000,)))
    check_moments(draws, mean, C)
    noisy = posterior.sample(jax.random.key(9), XS, (50_000,), observation=True)
    check_moments(np.asarray(noisy), mean, C + 0.1 * np.eye(4))
    # At the data without noise there is nothing left to draw, and it is finite.
    certain = kx.GaussianProcess(SE, 0.0).condition(X, Y)
    draws = np.asarray(certain.sample(jax.random.key(8), X[:4], (50_000,)))
    np.testing.assert_allclose(draws, np.tile(Y[:4], (50_000, 1)), atol=1e-6)
