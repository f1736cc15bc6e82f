"""Matern of any half-integer, Wendland, gamma-exponential, cosine and spectral mixture kernels."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx
from kernax._parameters import Interval
from kernax.gp._free_space import bounds, coordinate, free_space, natural
from tests.cases.stationary import CASES, MIXTURE
from tests.table import gram_reference

EPS = np.finfo(float).eps
MAT, WEND, GE = kx.MaternKernel, kx.WendlandKernel, kx.GammaExponentialKernel
COS, SM = kx.CosineKernel, kx.SpectralMixtureKernel
# k(r) at length-scale 1 and its mean-square derivatives, for the checks that all of them pass.
RADIAL = {
    "matern 0.5": MAT(1.0, 0.5),
    "matern 3.5": MAT(1.0, 3.5),
    "matern 20.5": MAT(1.0, 20.5),
    "wendland 0": WEND(0, 1.0),
    "wendland 1": WEND(1, 1.0),
    "wendland 2": WEND(2, 1.0),
    "gamma-exponential 0.7": GE(1.0, 0.7),
    "gamma-exponential 2": GE(1.0, 2.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_matrix_is_the_formula(name, points):
    case = CASES[name]
    K, expected = case.kernel.gram(points), gram_reference(case, points)
    np.testing.assert_allclose(K, expected, rtol=1e-12, atol=40 * EPS * expected.max())
    np.testing.assert_array_equal(K, K.T)
    assert np.linalg.eigvalsh(K)[0] >= -len(points) * EPS * np.trace(K)


@pytest.mark.optimised
@pytest.mark.parametrize("name", RADIAL)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_are_right_to_the_last_digits(name, dtype):
    """Against 50 digits, at the inputs as rounded."""
    k = jax.tree.map(lambda leaf: leaf.astype(dtype), RADIAL[name].replace(length_scale=0.7))
    rng = np.random.default_rng(0)
    X = (10.0 ** rng.uniform(-4, 1.5, 60)).astype(dtype)
    values = np.asarray(k.gram(np.zeros(1, dtype), X))[0]
    with mpmath.workdps(50):
        scale = mpmath.mpf(float(k.length_scale))
        exact = [profile(name, k, mpmath.mpf(float(x)) / scale) for x in X]
        error = max(abs(mpmath.mpf(float(v)) - e) for v, e in zip(values, exact, strict=True))
    assert error <= 17 * np.finfo(dtype).eps


def profile(name, k, r):
    if isinstance(k, MAT):
        nu = mpmath.mpf(k.nu)
        t = mpmath.sqrt(2 * nu) * r
        return 2 ** (1 - nu) / mpmath.gamma(nu) * t**nu * mpmath.besselk(nu, t)
    if isinstance(k, GE):
        return mpmath.exp(-(r ** mpmath.mpf(float(k.gamma))))
    return wendland(k.smoothness, 1, min(r, 1))


def wendland(smoothness, d, r):
    n = max(d, 3) // 2 + smoothness + 1
    polynomial = {0: 1, 1: (n + 1) * r + 1, 2: ((n * n + 4 * n + 3) * r**2 + (3 * n + 6) * r + 3)}
    return (1 - r) ** (n + smoothness) * polynomial[smoothness] / (3 if smoothness == 2 else 1)


@jax.jit
def matrix_and_slopes(k, X):
    total = lambda k: (jnp.sum(K := k.gram(X)), K)
    (_, K), slopes = jax.value_and_grad(total, has_aux=True)(k)
    return K, slopes


@pytest.mark.parametrize("name", RADIAL)
@pytest.mark.parametrize(("scale", "apart"), [(1e-25, 0.0), (1e25, 1.0)])
def test_extreme_length_scales_in_single_precision(name, scale, apart):
    k = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), RADIAL[name].replace(length_scale=scale)
    )
    X = np.asarray([0.0, 1.0, 3.0], np.float32)
    K, gradient = matrix_and_slopes(k, X)
    K = np.asarray(K)
    np.testing.assert_array_equal(np.diag(K), 1.0)
    # A small gamma takes r = 1e-25 to 3e-18 only.
    np.testing.assert_allclose(K[0, 1:], apart, atol=0 if apart == 0 else 1e-6)
    for value in gradient.hyperparameters.values():
        np.testing.assert_allclose(value, 0.0, atol=1e-12)


@jax.jit
def at_coincidence(k, x):
    first = jax.grad(k.pairwise, argnums=(0, 1))(x, x)
    mixed = jax.jacfwd(jax.grad(k.pairwise, argnums=0), argnums=1)(x, x)
    return *first, mixed, jax.grad(lambda k: k.pairwise(x, x))(k)


L = 0.7
# d2k/dx dy at x = y in two dimensions, by hand; None where the kernel has a kink.
SECOND = {
    "matern 0.5": (MAT(L, 0.5), None),
    "matern 2.5": (MAT(L, 2.5), 5 / (3 * L**2) * np.eye(2)),
    "matern 20.5": (MAT(L, 20.5), 20.5 / 19.5 / L**2 * np.eye(2)),
    "wendland 0": (WEND(0, L), None),
    "wendland 1": (WEND(1, L), 20 / L**2 * np.eye(2)),
    "wendland 2": (WEND(2, L), 56 / 3 / L**2 * np.eye(2)),
    "gamma-exponential 1.4": (GE(L, 1.4), None),
    "gamma-exponential 2": (GE(L, 2.0), 2 / L**2 * np.eye(2)),
    "cosine": (COS([0.9, 2.1]), 4 * np.pi**2 * np.outer([1 / 0.9, 1 / 2.1], [1 / 0.9, 1 / 2.1])),
    "spectral mixture": (
        SM(*MIXTURE),
        sum(
            w * 4 * np.pi**2 * (np.diag(np.square(s)) + np.outer(m, m))
            for w, m, s in zip(*MIXTURE, strict=True)
        ),
    ),
}


@pytest.mark.parametrize("name", SECOND)
def test_derivatives_at_coincident_points_are_those_by_hand(name):
    k, expected = SECOND[name]
    dx, dy, mixed, gradient = at_coincidence(k, jnp.asarray([0.4, -1.3]))
    np.testing.assert_array_equal(dx, [0.0, 0.0])
    np.testing.assert_array_equal(dy, [0.0, 0.0])
    if expected is not None:
        np.testing.assert_allclose(mixed, expected, rtol=1e-12)
    for path, value in gradient.hyperparameters.items():
        np.testing.assert_array_equal(value, 1.0 if path == "weights" else 0.0)


@jax.jit
def fourth(k):
    f = lambda x, y: k.pairwise(x[None], y[None])
    return jax.grad(jax.grad(jax.grad(jax.grad(f, 0), 1), 0), 1)(0.4, 0.4)


def test_fourth_derivatives_at_coincident_points():
    nu = 3.5
    expected = 3 * nu**2 / ((nu - 1) * (nu - 2)) / L**4
    np.testing.assert_allclose(fourth(MAT(L, nu)), expected, rtol=1e-12)
    # k = 1 - (28/3) r^2 + 70 r^4 + O(|r|^5)
    np.testing.assert_allclose(fourth(WEND(2, L)), 70 * 24 / L**4, rtol=1e-12)


# --- Matern ------------------------------------------------------------------------------------


def test_the_named_materns_are_among_them(points):
    for nu, named in ((0.5, kx.Matern12Kernel), (1.5, kx.Matern32Kernel), (2.5, kx.Matern52Kernel)):
        k = MAT([0.6, 1.7], nu)
        np.testing.assert_array_equal(k.gram(points), named([0.6, 1.7]).gram(points))
        assert k.differentiability == named.differentiability
    assert MAT().nu == 1.5
    assert (2.0 * MAT(1.0, np.float32(7.5)) + MAT(1.0, 3.5)).differentiability == 3


@pytest.mark.parametrize(
    ("nu", "nearest"),
    [(1.0, "0.5"), (2.4, "2.5"), (3, "2.5"), (-4, "0.5"), (np.nan, "1.5"), (np.inf, "1.5"),
     ("2.5x", "1.5"), (200.5, "100.5"), (True, "0.5"), ([2.5, 3.5], "1.5")],
)  # fmt: skip
def test_another_smoothness_is_refused(nu, nearest):
    with pytest.raises(
        kx.ParameterError, match=rf"`nu` is .* half-integer .*nearest, nu={nearest},"
    ):
        MAT(1.0, nu)


def test_a_traced_smoothness_is_refused():
    with pytest.raises(kx.ParameterError, match="known when the kernel is built"):
        jax.jit(lambda nu: MAT(1.0, nu)(0.0, 1.0))(2.5)


def test_a_large_smoothness_is_near_the_squared_exponential(points):
    np.testing.assert_allclose(
        MAT(0.6, 100.5).gram(points), kx.SEKernel(0.6).gram(points), atol=3e-3
    )


# --- Wendland ----------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothness", [0, 1, 2])
@pytest.mark.parametrize("d", [1, 4, 7])
def test_wendland_is_the_polynomial_of_its_dimension(smoothness, d):
    X = np.random.default_rng(d).uniform(size=(40, d))
    k = WEND(smoothness, 0.9)
    r = np.linalg.norm(X[:, None] - X, axis=-1) / 0.9
    expected = np.where(r < 1, wendland(smoothness, d, np.minimum(r, 1)), 0.0)
    K = np.asarray(k.gram(X))
    np.testing.assert_allclose(K, expected, atol=20 * EPS)
    np.testing.assert_array_equal(K == 0, r >= 1)
    np.testing.assert_array_equal(K, K.T)
    assert np.linalg.eigvalsh(K)[0] > -1e-14
    assert k.differentiability == smoothness
    np.testing.assert_allclose(k.gradient(X)[3, 3], 0.0, atol=0)
    # Wrappers keep the dimension that is read.
    wide = np.concatenate([X, 7 * X], axis=1)
    within = kx.ActiveDimsKernel(k, list(range(d)))
    np.testing.assert_array_equal(within.gram(wide), K)
    np.testing.assert_allclose(kx.ARDKernel(k, np.full(d, 0.9)).gram(X), K, atol=20 * EPS)


@pytest.mark.parametrize("smoothness", [0, 1, 2])
def test_wendland_ends_smoothly(smoothness):
    f = lambda x, scale: WEND(smoothness, scale).pairwise(x, jnp.zeros(1))[None]
    jets = jax.jit(lambda x, s: (f(x, s), *jax.jacobian(f, (0, 1))(x, s), jax.hessian(f)(x, s)))
    for x in (2.0, 2.5, -2.0):
        for value in jets(jnp.asarray([x]), 2.0)[:3]:
            np.testing.assert_array_equal(value, np.zeros_like(value))
    at = lambda x: [np.ravel(value)[0] for value in jets(jnp.asarray([x]), 2.0)]
    (value, slope, _, curve), above, below = at(1.3), at(1.3 + 1e-4), at(1.3 - 1e-4)
    np.testing.assert_allclose(slope, (above[0] - below[0]) / 2e-4, rtol=1e-6)
    np.testing.assert_allclose(curve, (above[1] - below[1]) / 2e-4, rtol=1e-6)


@pytest.mark.parametrize("smoothness", [3, -1, 1.0, True, None])
def test_another_smoothness_of_wendland_is_refused(smoothness):
    with pytest.raises(kx.ParameterError, match=r"`smoothness` is .*, expected 0, 1 or 2"):
        WEND(smoothness, 1.0)


# --- gamma-exponential -------------------------------------------------------------------------


def test_the_ends_of_the_gamma_exponential_are_known_kernels(points):
    tol = {"rtol": 1e-14, "atol": 1e-15}
    np.testing.assert_allclose(
        GE(0.6, 1.0).gram(points), kx.Matern12Kernel(0.6).gram(points), **tol
    )
    half = kx.SEKernel(0.6 / np.sqrt(2)).gram(points)
    np.testing.assert_allclose(GE(0.6, 2.0).gram(points), half, **tol)


def test_gamma_derivatives_are_finite_and_right():
    f = lambda x, gamma: GE(0.6, gamma).pairwise(x[None], jnp.zeros(1))
    jets = jax.jit(lambda *at: (f(*at), *jax.grad(f, (0, 1))(*at), jax.grad(jax.grad(f), 1)(*at)))
    for gamma in (0.3, 1.0, 1.7):
        np.testing.assert_array_equal(jets(jnp.asarray(0.0), gamma), [1.0, 0.0, 0.0, 0.0])
        above, below = (np.asarray(jets(jnp.asarray(0.9), gamma + h)) for h in (1e-5, -1e-5))
        slopes = jets(jnp.asarray(0.9), gamma)[2:]
        np.testing.assert_allclose(slopes, (above - below)[:2] / 2e-5, rtol=1e-7)


def test_gamma_is_at_most_two():
    assert GE(1.0, 2.0).gamma == 2.0
    assert GE(1.0, 1.0).replace(gamma=2).gamma == 2.0
    for gamma in (0.0, -1.0, 2.0001, np.nan):
        with pytest.raises(kx.ParameterError, match=r"`gamma` is .*between 0 and 2, 2 included"):
            GE(1.0, gamma)
    traced = jax.jit(lambda g: GE(1.0, g)(0.0, 1.0))
    assert np.isnan(traced(2.5))
    np.testing.assert_allclose(traced(2.0), np.exp(-1), rtol=1e-15)


def test_a_closed_interval_round_trips():
    closed = Interval(0.0, 2.0, True)
    start, values = jnp.asarray(1.3), jnp.asarray([1e-5, 0.4, 1.3, 1.999999, 2.0])
    to_natural = jax.jit(lambda u: natural(closed, u, start))
    u = jax.jit(lambda values: coordinate(closed, values, start))(values)
    np.testing.assert_allclose(to_natural(u), values, rtol=8 * EPS)
    ends = to_natural(jnp.asarray([-1e3, 1e3]))
    np.testing.assert_allclose(ends, [2e-6, 2.0], rtol=1e-5)
    assert ends[1] <= 2.0
    assert closed.contains(np.asarray(ends)).all()
    low, high = bounds(closed, 1.3)
    np.testing.assert_allclose(to_natural(np.array([low, high])), ends, rtol=1e-7)
    slope = jax.jit(jax.grad(to_natural))(0.0)
    np.testing.assert_allclose(slope, 1.3 * 0.7 / 2, rtol=1e-5)


def test_the_end_of_a_closed_interval_is_not_fitted():
    k = GE(1.0, 2.0)
    with pytest.raises(kx.ParameterError, match=r"'gamma' is 2, the end .* fixed=\('gamma',\)"):
        free_space(k, frozenset())
    assert free_space(k, frozenset({"gamma"}))[0].paths == ("length_scale",)


def test_files_hold_them(tmp_path, points):
    k = MAT(0.6, 4.5) + WEND(1, [2.0, 3.0]) * GE(0.5, 2.0) + COS(0.9) * SM(*MIXTURE)
    batch = kx.BatchKernel(k, 2, 0, batch_over_inputs=False)
    for model in (k, batch):
        kx.save(tmp_path / "k.json", model)
        loaded = kx.load(tmp_path / "k.json")
        np.testing.assert_array_equal(loaded.gram(points), model.gram(points))
        assert loaded.structure is model.structure
