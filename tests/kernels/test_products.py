"""Kernels of the inner product, of similarity, and Brownian motions, beyond the contract."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from sklearn.gaussian_process.kernels import DotProduct
from sklearn.metrics.pairwise import polynomial_kernel, sigmoid_kernel

import kernax as kx
from tests.cases.products import (
    EXACT,
    KERNELS,
    awkward_points,
    exact_brownian,
    multiprecise,
)

RNG = np.random.default_rng(5)
POLY, ARC, FBM = kx.PolynomialKernel, kx.ArcCosineKernel, kx.FractionalBrownianKernel


@jax.jit
def gradient(k, x, y):
    return jax.grad(k.pairwise)(x, y)


# --- fifty digits -------------------------------------------------------------------------------


@pytest.mark.optimised
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", EXACT)
def test_values_keep_their_digits(name, dtype):
    k = jax.tree.map(lambda leaf: leaf.astype(dtype), KERNELS[name])
    X = awkward_points(RNG, dtype)
    K = np.asarray(k.gram(X))
    assert K.dtype == dtype
    with mp.workdps(60):
        values, rows = multiprecise(k.hyperparameters.values()), [multiprecise(x) for x in X]
        exact = [[EXACT[name](x, y, *values) for y in rows] for x in rows]
        for i in range(len(X)):
            for j in range(len(X)):
                error = abs(mp.mpf(float(K[i, j])) - exact[i][j])
                scale = mp.sqrt(exact[i][i] * exact[j][j])
                assert error <= (16 + 2) * float(np.finfo(dtype).eps) * scale, (X[i], X[j])


def test_the_arc_cosine_is_the_expectation_that_defines_it():
    """2 E[h(w . u) h(w . v)] of a standard normal w in the plane, in polar coordinates."""
    x, y, weight, bias = 0.8, -1.7, 0.7, 1.3
    u, v = (np.array([np.sqrt(weight) * z, np.sqrt(bias)]) for z in (x, y))
    angles = [np.arctan2(*w[::-1]) for w in (u, v)]
    low, high = max(angles) - np.pi / 2, min(angles) + np.pi / 2  # where both are positive
    for order in (0, 1, 2):
        turning = mp.quad(
            lambda t, n=order: mp.fprod((w[0] * mp.cos(t) + w[1] * mp.sin(t)) ** n for w in (u, v)),
            [low, high],
        )
        radial = mp.quad(lambda r, n=order: r ** (2 * n + 1) * mp.exp(-(r**2) / 2), [0, 2, 12])
        expected = 2 * turning * radial / (2 * mp.pi)
        np.testing.assert_allclose(ARC(order, weight, bias)(x, y), float(expected), rtol=1e-12)


@jax.jit
def slopes_in_hurst(hurst, x, y):
    return jax.jacfwd(lambda h: FBM(h, 1.4).gram(x, y))(hurst)


@pytest.mark.parametrize("hurst", [0.1, 0.5, 0.9])
def test_the_derivative_in_the_hurst_exponent(hurst):
    x, y = np.array([[1e-3, 0.2], [2.0, 1.0]]), np.array([[5.0, -3.0], [2.0, 1.0]])
    slopes = slopes_in_hurst(hurst, x, y)
    with mp.workdps(40):
        for i in range(2):
            for j in range(2):
                pair = multiprecise(x[i]), multiprecise(y[j])
                exact = mp.diff(lambda h, p=pair: exact_brownian(*p, h, mp.mpf(1.4)), hurst)
                np.testing.assert_allclose(slopes[i, j], float(exact), rtol=1e-12)


# --- other libraries, and closed forms ----------------------------------------------------------


def test_scikit_learn_agrees():
    X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3))
    cases = (
        (POLY(3, 0.7, 1.3), lambda X, Y: polynomial_kernel(X, Y, 3, 0.7, 1.3)),
        (POLY(1, 1.0, 0.49), DotProduct(0.7)),
        (POLY(2, 1.0, 0.0), lambda X, Y: np.square(X @ Y.T)),
        (kx.SigmoidKernel(0.7, -0.3), lambda X, Y: sigmoid_kernel(X, Y, 0.7, -0.3)),
    )
    for ours, theirs in cases:
        np.testing.assert_allclose(ours.gram(X), theirs(X, X), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(ours.gram(X, Y), theirs(X, Y), rtol=1e-12, atol=1e-14)
    assert repr(POLY()) == "Polynomial(degree=2, gamma=1, constant=1)"


def test_brownian_motion_on_the_line_is_exactly_the_minimum():
    x = np.concatenate([[0.0, 1e-300, 1e-8, 3.0, 3.0], 1e9 + RNG.uniform(size=4), [1e300]])
    k = kx.BrownianKernel(2.0)
    np.testing.assert_array_equal(k.gram(x), 2.0 * np.minimum(x[:, None], x))
    np.testing.assert_array_equal(k.gram(-x), k.gram(x))
    np.testing.assert_array_equal(k.gram(x, -x), np.zeros((10, 10)))


def test_fractional_brownian_motion_has_stationary_increments():
    X = RNG.normal(size=(6, 3))
    distance = np.linalg.norm(X[:, None] - X, axis=-1)
    for hurst in (0.2, 0.8):
        K = np.asarray(FBM(hurst, 1.4).gram(X))
        increments = np.diag(K)[:, None] + np.diag(K) - 2 * K
        np.testing.assert_allclose(increments, 1.4 * distance ** (2 * hurst), atol=1e-14)
    K = kx.BrownianKernel(1.4).gram(X)
    np.testing.assert_allclose(FBM(0.5, 1.4).gram(X), K, rtol=1e-13, atol=1e-15)


def test_tanimoto_of_sets_is_intersection_over_union():
    sets = RNG.integers(0, 2, size=(8, 12))
    sets[3], sets[5] = 0, 0
    both, either = (np.array([[op(a, b).sum() for b in sets] for a in sets])
                    for op in (np.logical_and, np.logical_or))  # fmt: skip
    expected = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    k = kx.TanimotoKernel()
    np.testing.assert_allclose(k.gram(sets.astype(np.uint8)), expected, rtol=1e-15)
    np.testing.assert_array_equal(np.diag(k.gram(RNG.normal(size=(9, 5)))), 1.0)


@pytest.mark.parametrize("unit", [2.0**-80, 2.0**80])
def test_squares_do_not_underflow_or_overflow(unit):
    X = np.float32([[1, 2], [3, -1], [2, 2], [0, 0], [1, 2]])
    motion = FBM(np.float32(0.5), np.float32(1.0))
    for k, power in ((kx.TanimotoKernel(), 0), (motion, 1)):
        scaled = k.gram((X * unit).astype(np.float32))
        np.testing.assert_allclose(scaled, np.asarray(k.gram(X)) * unit**power, rtol=1e-6)
        slope = gradient(k, *jnp.asarray(X[:2] * unit, jnp.float32))
        plain = gradient(k, *jnp.asarray(X[:2]))
        np.testing.assert_allclose(slope, plain * unit ** (power - 1), rtol=1e-5)


def test_hamming_compares_codes_as_they_are():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 7.0])
    np.testing.assert_allclose(kx.HammingKernel(0.8)(x, y), np.exp(-2 / 0.8), rtol=1e-15)
    weighted = kx.HammingKernel([1.0, 2.0, 4.0])
    np.testing.assert_allclose(weighted(x, y), np.exp(-0.75), rtol=1e-15)
    in_ard = kx.ARDKernel(2.0 * kx.HammingKernel(), [1.0, 2.0, 4.0])
    np.testing.assert_allclose(in_ard(x, y), 2 * np.exp(-0.75), rtol=1e-15)
    # Neighbouring codes whose quotients by a length-scale would be one number.
    a = next(a for a in np.linspace(1.5, 2, 9) if a / 3 == np.nextafter(a, 0) / 3)
    b = np.nextafter(a, 0)
    in_ard = kx.ARDKernel(kx.HammingKernel(), [3.0])
    np.testing.assert_allclose(in_ard.gram([a, b, a])[0], np.exp([0, -1 / 3, 0]), rtol=1e-15)
    codes = np.array([[250, 3], [6, 3]], np.uint8)
    np.testing.assert_allclose(kx.HammingKernel().gram(codes)[0, 1], np.exp(-1), rtol=1e-15)
    pair = jnp.asarray(x), jnp.asarray(y)
    in_scale = jax.jit(jax.grad(lambda scale: kx.HammingKernel(scale).pairwise(*pair)))
    assert in_scale(1e-200) == 0.0


def test_long_codes_stay_different_in_32_bits(x64_off):
    K = kx.HammingKernel().gram(np.array([1e9, 1e9 + 1, 1e9]))
    np.testing.assert_allclose(K[0], np.exp([0, -1, 0]), rtol=1e-6)


def test_integers_do_not_wrap():
    pixels = np.array([[16, 200], [0, 255]], np.uint8)
    counts = np.array([[65536, 1], [50000, 3]], np.int32)
    for X in (pixels, counts):
        for name in ("polynomial", "brownian"):
            exact = KERNELS[name].gram(X.astype(float))
            np.testing.assert_array_equal(KERNELS[name].gram(X), exact)
    exact = (0.7 * 65536 * 50000 + 0.7 * 3 + 1.3) ** 3
    np.testing.assert_allclose(KERNELS["polynomial"](*counts), exact, rtol=1e-14)
    np.testing.assert_allclose(KERNELS["polynomial"].pairwise(*jnp.asarray(counts)), exact)


def test_many_dimensions_are_the_same_formula():
    """Beyond what is written out coordinate by coordinate."""
    X = RNG.normal(size=(4, 70)) / 4
    X[2] = X[0]
    X[:, ::2] = np.round(X[:, ::2])
    norm = lambda z: np.linalg.norm(z, axis=-1)
    gap, D = norm(X[:, None] - X), X @ X.T
    S = norm(X)[:, None] + norm(X) - gap
    u = np.hstack([np.sqrt(0.7) * X, np.full((4, 1), np.sqrt(1.3))])
    t = np.arccos(np.clip(u @ u.T / (norm(u)[:, None] * norm(u)), -1, 1))
    scales = np.linspace(1, 3, 70)
    expected = {
        "polynomial": (0.7 * D + 1.3) ** 3,
        "steps": 1 - t / np.pi,
        "tanimoto": D / (np.diag(D)[:, None] + np.diag(D) - D),
        "brownian": 0.7 * S,
        "rough brownian": 0.7 * (norm(X)[:, None] ** 0.2 + norm(X) ** 0.2 - gap**0.2),
    }
    for name, K in expected.items():
        np.testing.assert_allclose(KERNELS[name].gram(X), K, rtol=1e-6, atol=1e-7)
    differ = np.sum((X[:, None] != X) / scales, -1)
    np.testing.assert_allclose(kx.HammingKernel(scales).gram(X), np.exp(-differ), rtol=1e-12)


def test_length_scales_divide_differences_not_points():
    hurst, x, y, scale = 0.1, 1.7, 1.7 + 1e-12, 3.0
    K = kx.ARDKernel(FBM(hurst), [scale]).gram([x, y])
    with mp.workdps(50):
        a, b = mp.mpf(x) / scale, mp.mpf(y) / scale
        exact = exact_brownian([a], [b], mp.mpf(hurst), 1)
    np.testing.assert_allclose(K[0, 1], float(exact), rtol=1e-14)


# --- matrices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 5])  # the contract has d = 2
def test_positive_semi_definite(d):
    X = RNG.normal(size=(21, d))
    X[3], X[4] = X[2], 0
    X[5:9] = np.round(X[5:9])
    for name, k in KERNELS.items():
        K = np.asarray(k.gram(X))
        np.testing.assert_array_equal(K, K.T)
        assert np.linalg.eigvalsh(K)[0] >= -21 * np.finfo(float).eps * np.trace(K), name
        assert k.sign() == 1


def test_grams_in_scaled_units_are_exactly_symmetric():
    X = RNG.normal(size=(67, 3))
    for name in ("squared ramps", "brownian"):
        k = kx.ARDKernel(KERNELS[name], [0.3, 0.7, 1.9])
        K = np.asarray(k.gram(X))
        np.testing.assert_array_equal(K, K.T)
        np.testing.assert_allclose(np.diag(K), k.diagonal(X), rtol=1e-15)


# --- derivatives at coincident points -----------------------------------------------------------


@jax.jit
def at_coincidence(k, x):
    return jax.grad(k.pairwise)(x, x), jax.jacfwd(jax.grad(k.pairwise), argnums=1)(x, x)


X0 = np.array([0.4, -1.3])
U0 = np.append(np.sqrt(0.7) * X0, np.sqrt(1.3))
NORM = np.linalg.norm(X0)


@pytest.mark.parametrize(
    ("name", "first", "mixed"),
    [
        # By half of the derivative of k(x, x), and by 2 weight E[h'(w . u)^2 w w'].
        ("steps", 0 * X0, None),
        ("ramps", 0.7 * X0, 0.7 * np.eye(2)),
        (
            "squared ramps",
            6 * 0.7 * U0 @ U0 * X0,
            4 * 0.7 * (U0 @ U0 * np.eye(2) + 2 * 0.7 * np.outer(X0, X0)),
        ),
        ("tanimoto", 0 * X0, 2 / NORM**2 * np.eye(2)),
        ("hamming", 0 * X0, None),
        ("brownian", 0.7 * X0 / NORM, None),
        ("rough brownian", 0.14 * NORM ** (0.2 - 2) * X0, None),
        ("persistent brownian", 1.26 * NORM ** (1.8 - 2) * X0, None),
    ],
)
def test_derivatives_at_coincident_points(name, first, mixed):
    k = KERNELS[name]
    gradient, found = at_coincidence(k, jnp.asarray(X0))
    np.testing.assert_allclose(gradient, first, rtol=1e-13, atol=1e-15)
    if mixed is None:
        assert k.differentiability == 0
        assert jnp.isfinite(found).all()
    else:
        # It has derivatives wherever it does not jump, which is at 0 only.
        assert k.differentiability >= 1 or isinstance(k, kx.TanimotoKernel)
        np.testing.assert_allclose(found, mixed, rtol=1e-12, atol=1e-14)


def test_an_arc_cosine_process_is_as_often_differentiable_as_its_order():
    assert [ARC(n).differentiability for n in (0, 1, 2)] == [0, 1, 2]
    assert (ARC(1) + kx.SEKernel()).differentiability == 1
    # Fourth derivatives exist for squared ramps: 2 weight^2 E[h''^2 w^4] = 4 * 3 weight^2.
    f = lambda x, y: ARC(2, 0.7, 1.3).pairwise(x[None], y[None])
    fourth = jax.jit(jax.grad(jax.grad(jax.grad(jax.grad(f, 0), 0), 1), 1))
    np.testing.assert_allclose(fourth(0.4, 0.4), 12 * 0.49, rtol=1e-12)


def test_gradients_where_the_formulas_have_kinks_or_jumps():
    x, zero = jnp.asarray(X0), jnp.zeros(2)
    slope = lambda name, a, b: np.asarray(gradient(KERNELS[name], a, b))
    np.testing.assert_array_equal(slope("tanimoto", zero, zero), zero)
    np.testing.assert_allclose(slope("tanimoto", zero, x), X0 / NORM**2, rtol=1e-14)
    np.testing.assert_array_equal(slope("tanimoto", x, zero), zero)
    for name in ("brownian", "rough brownian", "persistent brownian"):
        np.testing.assert_array_equal(slope(name, zero, zero), zero)
        np.testing.assert_array_equal(slope(name, x, zero), zero)
        assert np.isfinite(slope(name, zero, x)).all()
    # On the line: the slopes of 1.4 min(x, y) on both sides of x = y and of x = 0.
    k = KERNELS["brownian"]
    found = k.gradient(np.array([2.0, 0.0, 1.0, 3.0, -1.0]), np.array([2.0]))[:, 0, 0]
    np.testing.assert_allclose(found, [0.7, 0.7, 1.4, 0.0, 0.0], rtol=1e-15)
    # Parallel and opposite vectors, also nearly so.
    for y in (x, x * (1 + 1e-12), -x, -1e6 * x, 1e6 * x):
        for name in ("steps", "ramps", "squared ramps"):
            assert np.isfinite(slope(name, 1e6 * x, y)).all()


# --- what is refused ----------------------------------------------------------------------------


DEGREE, ORDER = r"degree must be an int >= 1\. Fix:", r"`order` is .*, expected 0, 1 or 2\. Fix:"


@pytest.mark.parametrize(
    ("build", "values", "text"),
    [
        (POLY, [2.5, -1, 0, 2.0, True, "2", None], DEGREE),
        (ARC, [3, -1, 1.0, True, None], ORDER),
        (FBM, [0.0, 1.0, -0.1, np.nan], r"`hurst` is .* between 0 and 1.*Fix:"),
        (lambda c: POLY(2, 1.0, c), [-0.1, np.inf], r"`constant` is .*>= 0.*Fix:"),
    ],
)
def test_values_that_make_no_covariance(build, values, text):
    for value in values:
        with pytest.raises(kx.ParameterError, match=text):
            build(value)
    assert ARC(np.int64(2)).order == 2


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (POLY(2, [1.0, 2.0]), r"`gamma` has shape \(2,\), expected one value"),
        (kx.SigmoidKernel(1.0, [1.0, 2.0]), r"`constant` has shape \(2,\), expected one value"),
        (kx.LinearKernel([1.0, 2.0]), r"`variance` has shape \(2,\), expected one value"),
        (kx.BrownianKernel([1.0, 2.0]), r"`variance` has shape \(2,\), expected one value"),
        (FBM([0.3, 0.4]), r"`hurst` has shape \(2,\), expected one value"),
        (ARC(1, 1.0, [1.0, 2.0]), r"`bias_variance` has shape \(2,\), expected one value"),
        (ARC(1, [1.0, 2.0]), r"`weight_variance` has shape \(2,\).*dimension 3"),
        (kx.HammingKernel([1.0, 2.0]), r"`length_scale` has shape \(2,\).*dimension 3"),
        (kx.ARDKernel(kx.HammingKernel(), [1.0, 2.0]), r"`length_scales` has shape \(2,\)"),
    ],
)
def test_values_per_dimension_do_not_broadcast_over_pairs(kernel, text):
    with pytest.raises(kx.ShapeError, match=text + r"[\s\S]*Fix:"):
        kernel.gram(np.ones((2, 3)), np.ones((2, 3)))


def test_the_sigmoid_is_evaluated_but_is_no_covariance(points):
    k = kx.SigmoidKernel(0.7, -0.3)
    K = np.asarray(k.gram(points))
    np.testing.assert_allclose(K, np.tanh(0.7 * points @ points.T - 0.3), rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(K, K.T)
    assert np.linalg.eigvalsh(K)[0] < -0.01
    for kernel in (k, 2.0 * k + kx.SEKernel(), k**2):
        assert kernel.sign() == 0
        with pytest.raises(kx.NotPSDError, match="Sigmoid"):
            kx.GaussianProcess(kernel)
    x = jnp.asarray(points[0])
    slope = gradient(k, x, x)
    np.testing.assert_allclose(slope, 0.7 * x / np.cosh(0.7 * x @ x - 0.3) ** 2, rtol=1e-12)
    padded = np.asarray(k.gram(np.vstack([points, [[np.nan, 0.0]]])))
    np.testing.assert_array_equal(padded[:6, :6], K)
    assert np.isnan(padded[6]).all()


def test_a_traced_value_outside_its_range_gives_nan():
    x = jnp.asarray([1.0, 2.0])
    assert jnp.isnan(jax.jit(lambda h: FBM(h).gram(x))(1.5)).all()
    assert jnp.isnan(jax.jit(lambda g: POLY(2, g).gram(x))(-1.0)).all()
