"""The prior: its likelihood, its samples, and what it makes of the data it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import kernax as kx
from kernax import _inputs
from kernax.gp import _process
from tests.table import CASES, gram_reference

EPS = np.finfo(float).eps
RNG = np.random.default_rng(11)
X, Y = RNG.normal(size=(6, 2)), RNG.normal(size=6)
SE = 1.5 * kx.SEKernel(0.8)
GP = kx.GaussianProcess(SE, noise_variance=0.1)


def se(A, B):
    return 1.5 * np.exp(-0.5 * ((A[:, None] - B[None]) ** 2).sum(-1) / 0.8**2)


def log_density(y, K, mean=0.0):
    return multivariate_normal(np.broadcast_to(mean, len(y)), K).logpdf(y)


# --- the value ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum in a product", "ard of white noise", "mauna loa"])
def test_likelihood_against_numpy(name):
    gp = kx.GaussianProcess(CASES[name].kernel, noise_variance=0.3)
    K = gram_reference(CASES[name], X) + 0.3 * np.eye(6)
    value = gp.log_marginal_likelihood(X, Y)
    assert value.shape == ()
    np.testing.assert_allclose(value, log_density(Y, K), rtol=1e-11)


def test_likelihood_of_two_points_by_hand():
    gp = kx.GaussianProcess(2.0 * kx.SEKernel(0.5), noise_variance=0.1)
    a, b = 2.1, 2.0 * np.exp(-0.5 * (0.4 / 0.5) ** 2)
    y1, y2 = 1.2, -0.7
    quadratic = (a * y1**2 - 2 * b * y1 * y2 + a * y2**2) / (a**2 - b**2)
    expected = -0.5 * (quadratic + np.log(a**2 - b**2) + 2 * np.log(2 * np.pi))
    two = gp.log_marginal_likelihood([0.3, 0.7], [y1, y2])
    np.testing.assert_allclose(two, expected, rtol=1e-13)


def test_white_noise_and_noise_variance_add_up():
    value = kx.GaussianProcess(SE + kx.WhiteNoiseKernel(0.07), 0.03).log_marginal_likelihood(X, Y)
    np.testing.assert_allclose(value, GP.log_marginal_likelihood(X, Y), rtol=1e-13)
    twice = np.vstack([X[:3], X[:3]])
    K = np.tile(se(X[:3], X[:3]), (2, 2)) + 0.07 * np.eye(6)
    noisy = kx.GaussianProcess(SE + kx.WhiteNoiseKernel(0.07), 0.0)
    np.testing.assert_allclose(
        noisy.log_marginal_likelihood(twice, Y), log_density(Y, K), rtol=1e-11
    )


def test_one_noise_per_point_and_none_at_all():
    noise = np.linspace(0.05, 0.5, 6)
    gp = kx.GaussianProcess(SE, noise)
    np.testing.assert_allclose(
        gp.log_marginal_likelihood(X, Y), log_density(Y, se(X, X) + np.diag(noise)), rtol=1e-12
    )
    np.testing.assert_allclose(
        kx.GaussianProcess(SE, 0.0).log_marginal_likelihood(X, Y),
        log_density(Y, se(X, X)),
        rtol=1e-10,
    )
    with pytest.raises(kx.ShapeError, match=r"`noise_variance` has shape \(6,\).*`X` has 5 rows"):
        gp.log_marginal_likelihood(X[:5], Y[:5])
    with pytest.raises(kx.ShapeError, match=r"`noise_variance` has shape \(6,\).*`X` has 5 rows"):
        gp.sample(jax.random.key(0), X[:5], observation=True)
    with pytest.raises(kx.ParameterError, match=r"shape \(6, 1\), expected a scalar or \(n,\)"):
        kx.GaussianProcess(SE, noise[:, None])
    with pytest.raises(kx.ParameterError, match=r"`noise_variance` is -0.1, expected .* >= 0"):
        kx.GaussianProcess(SE, -0.1)


def test_solver():
    dense = kx.GaussianProcess(SE, 0.1, solver=kx.Dense())
    np.testing.assert_array_equal(
        dense.log_marginal_likelihood(X, Y), GP.log_marginal_likelihood(X, Y)
    )
    with pytest.raises(kx.ParameterError, match=r"`solver` is 'cg', expected 'auto', Dense\(\)"):
        kx.GaussianProcess(SE, 0.1, solver="cg")


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_extreme_variances_in_float32(scale):
    X32, Y32, s2 = X.astype(np.float32), Y.astype(np.float32), np.float32(scale)
    se = kx.SEKernel(np.float32(0.8))
    unit = kx.GaussianProcess(kx.ConstantKernel(np.float32(1)) * se, np.float32(0.1))
    gp = unit.replace(value=s2, noise_variance=np.float32(0.1) * s2)
    value = gp.log_marginal_likelihood(X32, Y32 * np.sqrt(s2))
    assert value.dtype == np.float32
    expected = float(unit.log_marginal_likelihood(X32, Y32)) - 0.5 * 6 * np.log(scale)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


# --- derivatives and transformations -----------------------------------------------------------


def test_gradient_against_differences_and_forward_mode():
    gp = kx.GaussianProcess(1.5 * kx.SEKernel([0.8, 1.3]), 0.1, mean=kx.ConstantMean(0.2))
    f = lambda gp: gp.log_marginal_likelihood(X, Y)

    @jax.jit
    def everything(gp):
        tangent = jax.tree.map(jnp.ones_like, gp)
        return f(gp), jax.grad(f)(gp), jax.jvp(f, (gp,), (tangent,))[1]

    _, slopes, forward = everything(gp)
    gradient = slopes.hyperparameters
    assert len(gradient) == 4
    for path, value in gp.hyperparameters.items():
        for i in range(value.size):
            h = np.zeros(value.size)
            h[i] = 1e-5
            h = h.reshape(value.shape)
            up, down = (everything(gp.replace(**{path: value + s * h}))[0] for s in (1, -1))
            np.testing.assert_allclose(gradient[path].ravel()[i], (up - down) / 2e-5, rtol=1e-6)
    total = sum(np.sum(slope) for slope in gradient.values())
    np.testing.assert_allclose(forward, total, rtol=1e-12)


def test_jitter_is_no_part_of_the_gradient():
    f = lambda gp: gp.log_marginal_likelihood(np.vstack([X[:3], X[:3]]), Y)
    c = 6 * EPS * 1.5
    slope = jax.jit(jax.value_and_grad(f))
    singular, shifted = (slope(GP.replace(noise_variance=v)) for v in (0.0, c))
    assert singular[0] == shifted[0]
    for path, slope in singular[1].hyperparameters.items():
        assert np.isfinite(slope)
        assert slope == shifted[1].hyperparameters[path]


def test_inside_jit_and_vmap_and_without_recompilation():
    scales = np.linspace(0.5, 2.0, 100)
    eager = [GP.replace(length_scale=s).log_marginal_likelihood(X, Y) for s in scales[:2]]
    size = _process._log_likelihood._cache_size()
    eager += [GP.replace(length_scale=s).log_marginal_likelihood(X, Y) for s in scales[2:]]
    assert _process._log_likelihood._cache_size() == size
    at = lambda s, y: GP.replace(length_scale=s).log_marginal_likelihood(X, y)
    np.testing.assert_allclose(jax.vmap(at, (0, None))(scales, Y), eager, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(at)(0.5, Y), eager[0], rtol=1e-14)
    # A failure is NaN when traced: a negative length-scale, a NaN in y.
    assert np.isnan(jax.jit(at)(-0.5, Y))
    assert np.isnan(jax.jit(at)(0.5, np.where(np.arange(6) == 2, np.nan, Y)))


# --- data --------------------------------------------------------------------------------------


def test_forms_of_the_data():
    value = GP.log_marginal_likelihood(X, Y)
    for X_, y_ in ((X, Y[:, None]), (X.tolist(), Y.tolist()), (jnp.asarray(X), jnp.asarray(Y))):
        np.testing.assert_array_equal(GP.log_marginal_likelihood(X_, y_), value)
    line = GP.log_marginal_likelihood(np.arange(6), Y)
    np.testing.assert_array_equal(GP.log_marginal_likelihood(np.arange(6.0)[:, None], Y), line)
    np.testing.assert_array_equal(GP.log_marginal_likelihood(jnp.arange(6), Y), line)


@pytest.mark.parametrize(
    ("X", "y", "error", "text"),
    [
        (X, Y[:5], kx.ShapeError, r"`X` has 6 rows \(shape \(6, 2\)\) and `y` has shape \(5,\)"),
        (X, np.ones((2, 6)), kx.ShapeError, r"`y` has shape \(2, 6\), expected \(6,\) or \(6, 1\)"),
        (X, Y[None, :], kx.ShapeError, r"`y` has shape \(1, 6\), expected \(6,\)"),
        (X[None], Y, kx.ShapeError, r"`X` has shape \(1, 6, 2\), expected \(n, d\) or \(n,\)"),
        (np.ones((6, 0)), Y, kx.ShapeError, "need at least 1 input dimension"),
        ([[1.0], [2.0, 3.0]], Y[:2], kx.ShapeError, "`X` is a ragged list"),
        (X + 1j, Y, kx.DTypeError, "`X` has dtype complex128, expected float32 or float64"),
        (X, Y.astype(np.float16), kx.DTypeError, r"`y` has dtype float16.*y.astype\('float32'\)"),
        ([["a"], ["b"]], Y[:2], kx.DTypeError, "`X` has dtype <U1"),
        (X.astype(object), Y, kx.DTypeError, "`X` has dtype object"),
        (np.where(X[3, 1] == X, np.inf, X), Y, kx.InputError, "`X` holds 1 inf.* row 3, column 1"),
        (X, np.where(Y[4] == Y, -np.inf, Y), kx.InputError, "`y` holds 1 infinite .* at row 4"),
        (X, np.where(Y[4] == Y, np.nan, Y), kx.InputError, "`y` holds 1 NaN where .* at row 4;"),
    ],
)
def test_unusable_data(X, y, error, text):
    with pytest.raises(error, match=text):
        GP.log_marginal_likelihood(X, y)


def test_nan_is_padding_unless_it_is_to_raise():
    bad = X.copy()
    bad[1, 0], bad[4] = np.nan, np.nan
    text = r'`X` holds 3 NaN, the first at row 1, column 0; .* or pass nan="pad"'
    with pytest.raises(kx.InputError, match=text):
        GP.log_marginal_likelihood(bad, Y, nan="raise")
    with pytest.raises(kx.InputError, match=text):
        GP.condition(bad, Y, nan="raise")
    real = [0, 2, 3, 5]
    expected = log_density(Y[real], se(X[real], X[real]) + 0.1 * np.eye(4))
    np.testing.assert_allclose(GP.log_marginal_likelihood(bad, Y), expected, rtol=1e-12)


def test_padding_changes_nothing():
    slopes = lambda *of, **mask: jax.jit(
        jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(*of, **mask))
    )(GP)
    unpadded, gradient = slopes(X, Y)
    for rows in ([0, 3, 8], [6, 7, 8]):
        mask = ~np.isin(np.arange(9), rows)
        values = []
        for filler in (np.nan, 0.0, 1e30, np.inf):
            Xp, yp = np.full((9, 2), filler), np.full(9, filler)
            Xp[mask], yp[mask] = X, Y
            values.append(GP.log_marginal_likelihood(Xp, yp, mask=mask))
            values.append(GP.log_marginal_likelihood(jnp.asarray(Xp), jnp.asarray(yp), mask=mask))
        np.testing.assert_array_equal(values, values[0])
        np.testing.assert_allclose(values[0], unpadded, rtol=1e-13)
    Xp[~mask], yp[~mask] = np.nan, np.nan
    np.testing.assert_allclose(GP.log_marginal_likelihood(Xp, yp), unpadded, rtol=1e-13)
    ours = slopes(Xp, yp, mask=mask)[1]
    for path, slope in ours.hyperparameters.items():
        np.testing.assert_allclose(slope, gradient.hyperparameters[path], rtol=1e-12)
    np.testing.assert_array_equal(
        GP.log_marginal_likelihood(Xp, yp, mask=mask, nan="raise"), values[0]
    )


def test_no_points_at_all():
    value = GP.log_marginal_likelihood(np.zeros((0, 2)), np.zeros(0))
    assert value == 0.0
    assert not np.signbit(value)
    assert SE.gram(np.zeros((0, 2))).shape == (0, 0)
    f = lambda gp: gp.log_marginal_likelihood(X, Y, mask=np.zeros(6, bool))
    value, gradient = jax.jit(jax.value_and_grad(f))(GP)
    assert value == 0.0
    assert all(slope == 0.0 for slope in gradient.hyperparameters.values())


def test_wrong_masks():
    with pytest.raises(kx.ShapeError, match=r"`mask` has shape \(5,\), expected \(6,\)"):
        GP.log_marginal_likelihood(X, Y, mask=np.ones(5, bool))
    with pytest.raises(kx.ShapeError, match=r"`mask` has shape \(6, 1\), expected \(6,\)"):
        GP.condition(X, Y, mask=np.ones((6, 1), bool))
    with pytest.raises(kx.DTypeError, match=r"`mask` has dtype float64, expected bool \(True = a"):
        GP.log_marginal_likelihood(X, Y, mask=np.ones(6))


# --- 32 bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "unit"), [(1.7e9, 1.0), (np.int64(1_700_000_000_000), 1000)])
def test_timestamps_are_shifted_before_they_are_rounded(start, unit, x64_off, monkeypatch):
    """Seconds as float64 and milliseconds as int64, in a process without x64."""
    monkeypatch.setattr(_inputs, "_warned_of_precision", True)
    gp = kx.GaussianProcess(kx.SEKernel(float(unit)), 0.1)
    steps, y = np.array([0, 1, 100]) * unit, np.float32([0.3, -0.5, 1.0])
    assert (start + steps).dtype == np.asarray(start).dtype
    near, far = (gp.condition(offset + steps, y) for offset in (0, start))
    assert far.data.X.dtype == np.float32
    K = np.array([[1, np.exp(-0.5), 0], [np.exp(-0.5), 1, 0], [0, 0, 1]]) + 0.1 * np.eye(3)
    np.testing.assert_allclose(far.log_marginal_likelihood, log_density(y, K), rtol=1e-6)
    tests = steps[:2] + unit // 2
    for predict in ("mean", "variance"):
        expected = getattr(near, predict)(tests)
        np.testing.assert_allclose(getattr(far, predict)(start + tests), expected, rtol=1e-5)
    # Traced test points are shifted too, with what digits they have left.
    rounded = jnp.asarray(start + tests, jnp.float32)
    np.testing.assert_array_equal(jax.jit(far.mean)(rounded), far.mean(rounded))


def test_float32_that_cannot_tell_points_apart_is_said(x64_off, monkeypatch):
    monkeypatch.setattr(_inputs, "_warned_of_precision", True)
    X32 = np.column_stack([np.zeros(3), 1.7e9 + np.array([0, 1, 100.0])]).astype(np.float32)
    text = "`X` column 1 is float32 with values near 1.7e.09, .* are 128 apart. Fix: subtract an"
    with pytest.warns(kx.PrecisionWarning, match=text):
        GP.log_marginal_likelihood(X32, Y[:3])


def test_lost_digits_are_said_once(x64_off, monkeypatch):
    monkeypatch.setattr(_inputs, "_warned_of_precision", False)
    gp = kx.GaussianProcess(kx.SEKernel(), 0.1)
    with pytest.warns(kx.PrecisionWarning, match=r'update\("jax_enable_x64", True\)') as seen:
        gp.log_marginal_likelihood(X, Y)
    assert len(seen) == 1
    gp.log_marginal_likelihood(X, Y)
    assert kx.precision() == np.float32
    with jax.enable_x64(True):
        assert kx.precision() == np.float64


# --- what is not a covariance ------------------------------------------------------------------


class Indefinite(kx.AbstractKernel):
    def pairwise(self, x, y):
        return 1.0 - 5.0 * jnp.sum(jnp.abs(x - y))


def test_a_difference_is_refused_before_anything_is_factorised():
    for kernel in (SE - kx.Matern32Kernel(), -2.0 * kx.SEKernel(), -SE, SE - 0.5):
        with pytest.raises(kx.NotPSDError, match=r"`kernel` = .* NegKernel in `-.*indefinite"):
            kx.GaussianProcess(kernel)


def test_an_indefinite_kernel_fails_and_says_where_to_look():
    gp = kx.GaussianProcess(Indefinite(), 0.0)
    # Padding, at both ends, counts neither as points nor as duplicates.
    padded = np.vstack([[np.nan, 0], X[:5], X[2], [np.nan, 0]])
    text = (
        r"the 6 x 6 covariance matrix \(float64\) is not positive semi-definite: its diagonal is "
        r"between 1 and 1, and adding up to 1.33e-13 to it did not help. Points 3 and 6 are "
        r"duplicates. Fix: add noise \(a larger `noise_variance`\), or enable x64."
    )
    with pytest.raises(kx.NotPSDError, match=text):
        gp.log_marginal_likelihood(padded, np.zeros(8))
    with pytest.raises(kx.NotPSDError, match=text):
        gp.sample(jax.random.key(0), padded)
    padded[6] += [3e-9, 4e-9]
    with pytest.raises(kx.NotPSDError, match="Points 3 and 6 are only 5e-09 apart"):
        gp.log_marginal_likelihood(padded, np.zeros(8))


# --- samples -----------------------------------------------------------------------------------


def check_moments(draws, mean, K):
    """Mean and covariance within 5 standard errors."""
    N, variance = len(draws), np.diag(K)
    error = np.abs(draws.mean(axis=0) - mean) / np.sqrt(variance / N)
    assert error.max() < 5
    centred = draws - mean
    spread = np.sqrt((np.outer(variance, variance) + K**2) / N)
    assert (np.abs(centred.T @ centred / N - K) / spread).max() < 5


def test_moments_of_samples_of_a_singular_covariance():
    twice = np.vstack([X[:2], X[:2]])
    gp = kx.GaussianProcess(SE + kx.WhiteNoiseKernel(0.2), 0.1, mean=0.7)
    draws = np.asarray(gp.sample(jax.random.key(3), twice, (100_000,)))
    assert draws.shape == (100_000, 4)
    check_moments(draws, 0.7, se(twice, twice))
    np.testing.assert_array_equal(gp.sample(jax.random.key(3), twice, (100_000,)), draws)
    assert not np.array_equal(gp.sample(jax.random.key(4), twice, (100_000,)), draws)
    np.testing.assert_allclose(draws[:, :2], draws[:, 2:], atol=1e-6)
    noisy = np.asarray(gp.sample(jax.random.key(4), twice, (100_000,), observation=True))
    check_moments(noisy, 0.7, se(twice, twice) + 0.3 * np.eye(4))


def test_samples_at_padding_are_nan():
    padded = X.copy()
    padded[2, 1] = np.nan
    draws = np.asarray(GP.sample(jax.random.key(0), padded, (2, 3)))
    np.testing.assert_array_equal(np.isnan(draws), np.tile(np.arange(6) == 2, (2, 3, 1)))


@pytest.mark.parametrize("batch", [False, True])
def test_what_cannot_be_transposed_has_forward_derivatives(batch):
    """A mean with a loop whose length is not known before."""
    cube = lambda b, x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * b), (0, x)
    )[1]
    kernel = kx.SEKernel(1.0)
    kernel, x = (
        (kx.BatchKernel(kernel, 2, 0), jnp.linspace(0.0, 3.0, 12).reshape(2, 6, 1))
        if (batch)
        else (kernel, jnp.linspace(0.0, 3.0, 6)[:, None])
    )

    def value(power):
        def likelihood(b):
            gp = kx.GaussianProcess(kernel, 0.1, mean=lambda X: power(b, X[:, 0]))
            return jnp.sum(gp.log_marginal_likelihood(x, jnp.sin(x[..., 0])))

        return likelihood

    found = jax.jvp(value(cube), (0.9,), (1.0,))
    expected = jax.jvp(value(lambda b, x: b**3 * x), (0.9,), (1.0,))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(value(cube))(0.9)


def test_without_compiling_and_with_leaks_looked_for():
    """Two of JAX's modes for finding errors."""
    x = jnp.linspace(0.0, 3.0, 7)[:, None]
    value = lambda noise: kx.GaussianProcess(kx.SEKernel(1.0), noise).log_marginal_likelihood(
        x, jnp.sin(x[:, 0])
    )
    expected = jax.value_and_grad(value)(0.1)
    with jax.disable_jit():
        plain = jax.value_and_grad(value)(0.1)
    with jax.checking_leaks():
        looked = jax.jit(jax.value_and_grad(lambda noise: value(1.0 * noise)))(0.1)
    np.testing.assert_allclose([plain, looked], [expected] * 2, rtol=1e-9)
