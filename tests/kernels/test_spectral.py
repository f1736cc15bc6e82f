"""Spectral densities against numerical Fourier integrals; random features against the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import jv

import kernax as kx

SE, M12, M32, M52 = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel, kx.Matern52Kernel
MAT, RQ, PER, COS = kx.MaternKernel, kx.RationalQuadraticKernel, kx.PeriodicKernel, kx.CosineKernel
GE, SM, LIN, WN = kx.GammaExponentialKernel, kx.SpectralMixtureKernel, kx.LinearKernel, None
CONST, ARD, DIMS = kx.ConstantKernel, kx.ARDKernel, kx.ActiveDimsKernel
WN = kx.WhiteNoiseKernel
MIXTURE = SM([0.6, 1.1], [[0.3, 0.8], [-0.5, 0.0]], [[0.2, 0.1], [0.15, 0.3]])
OMEGA = np.array([0.0, 0.3, 2.7])


# --- spectral densities ------------------------------------------------------------------------

# The covariance at r for length-scale 0.8, in plain NumPy.
RADIAL = {
    "se": (SE(0.8), lambda r: np.exp(-(r**2) / 1.28)),
    "matern12": (M12(0.8), lambda r: np.exp(-r / 0.8)),
    "matern32": (M32(0.8), lambda r: (1 + np.sqrt(3) * r / 0.8) * np.exp(-np.sqrt(3) * r / 0.8)),
    "matern52": (
        M52(0.8),
        lambda r: (
            (1 + np.sqrt(5) * r / 0.8 + 5 * (r / 0.8) ** 2 / 3) * np.exp(-np.sqrt(5) * r / 0.8)
        ),
    ),
    "matern72": (
        MAT(0.8, 3.5),
        lambda r: np.polyval([1 / 15, 2 / 5, 1, 1], t := np.sqrt(7) * r / 0.8) * np.exp(-t),
    ),
    "rational quadratic": (RQ(0.8, 8.3), lambda r: (1 + (r / 0.8) ** 2 / 16.6) ** -8.3),
    "sum": (
        2.0 * SE(0.8) + M12(1.1) * 0.5,
        lambda r: 2 * np.exp(-(r**2) / 1.28) + 0.5 * np.exp(-r / 1.1),
    ),
}


def fourier(k, d, w):
    """The Fourier integral of a radial function over R^d, as one over the radius."""
    if w == 0:
        area = {1: 2, 2: 2 * np.pi, 3: 4 * np.pi, 5: 8 * np.pi**2 / 3}[d]
        return area * quad(lambda r: k(r) * r ** (d - 1), 0, np.inf, epsabs=1e-12)[0]
    order = d / 2 - 1
    integrand = lambda r: k(r) * jv(order, w * r) * r ** (d / 2)
    pieces = [quad(integrand, a, a + 10, epsabs=1e-12, limit=200)[0] for a in range(0, 60, 10)]
    return (2 * np.pi) ** (d / 2) * w**-order * sum(pieces)


@pytest.mark.parametrize("name", RADIAL)
def test_densities_are_fourier_integrals(name):
    kernel, k = RADIAL[name]
    for d in (1, 2, 3, 5):
        omega = np.zeros((len(OMEGA), d))
        omega[:, 0], omega[:, -1] = 0.6 * OMEGA, (0.8 if d > 1 else 1.0) * OMEGA
        expected = [fourier(k, d, w) for w in OMEGA]
        np.testing.assert_allclose(kx.spectral_density(kernel, omega), expected, rtol=1e-7)
    np.testing.assert_array_equal(
        kx.spectral_density(kernel, OMEGA), kx.spectral_density(kernel, OMEGA[:, None])
    )


PLANE = {
    "se per dimension": SE([0.7, 1.4]),
    "mixture": MIXTURE,
    "ard": ARD(SE(5.0) + 0.5 * MIXTURE, [0.7, 1.4]),
    "other order": DIMS(SE([0.7, 1.4]), [1, 0]),
    "over dimensions of their own": 2.0 * DIMS(SE(0.7), [-1]) * (0.3 * DIMS(SE(1.4) * 2.0, [0])),
    "difference": 3.0 * SE([0.7, 1.4]) - SE(0.9) ** 1,
    "rational quadratic per dimension": RQ([0.7, 1.4], 40.0),
}


@pytest.mark.parametrize("name", PLANE)
def test_densities_in_the_plane_give_the_kernel_back(name):
    """The trapezoidal rule converges exponentially on these."""
    kernel, h = PLANE[name], 0.35
    grid = np.arange(-40, 41) * h
    omega = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    S = np.asarray(kx.spectral_density(kernel, omega))
    R = np.array([[0.0, 0.0], [0.4, -0.9], [1.3, 0.8]])
    values = np.cos(R @ omega.T) @ S * (h / (2 * np.pi)) ** 2
    np.testing.assert_allclose(values, kernel.gram(R, np.zeros((1, 2)))[:, 0], atol=1e-9)


def test_rational_quadratics_with_heavy_tails():
    """A Bessel function, with a pole at 0 where k is not integrable."""
    from scipy.special import gamma, kv

    omega = np.array([1e-8, 1e-3, 0.4, 3.0, 60.0])
    for alpha in (0.05, 0.5, 0.7, 1.0, 12.3):
        z, order = np.sqrt(2 * alpha) * 0.8 * omega, alpha - 0.5
        expected = (
            np.sqrt(2 * np.pi) * 0.8 * 2 * alpha**alpha / gamma(alpha)
            * (0.8 * omega / np.sqrt(2 * alpha)) ** order * kv(order, z)
        )  # fmt: skip
        np.testing.assert_allclose(kx.spectral_density(RQ(0.8, alpha), omega), expected, rtol=1e-11)
    at_zero = kx.spectral_density(RQ(0.8, 0.5), [0.0])
    assert np.isposinf(at_zero)
    for alpha, limit in ((1e5, 2e-5), (1e12, 1e-10)):
        S, limiting = (kx.spectral_density(k, OMEGA) for k in (RQ(0.8, alpha), SE(0.8)))
        np.testing.assert_allclose(S, limiting, rtol=limit)


DIFFERENTIATED = {
    "matern": MAT([0.7, 1.4], 3.5),
    "rational quadratic": RQ([0.7, 1.4], 1.3),
    "mixture": 2.0 * MIXTURE + ARD(M32(), [0.7, 1.4]),
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_densities_are_differentiable(name):
    kernel = DIFFERENTIATED[name]
    omega = jnp.asarray([[0.0, 0.0], [0.4, -1.1], [2.0, 0.3]])
    f = jax.jit(lambda values, omega: kx.spectral_density(kernel.replace(**values), omega))
    total = lambda values, omega: jnp.sum(jnp.asarray([1.0, 2.0, 3.0]) * f(values, omega))
    values = kernel.hyperparameters
    gradient, slope = jax.grad(total, (0, 1))(values, omega)
    for path, value in values.items():
        along = np.cos(np.arange(value.size)).reshape(value.shape)
        above, below = (total(values | {path: value + h * along}, omega) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(
            np.sum(gradient[path] * along), (above - below) / 2e-5, rtol=1e-7
        )
    above, below = (total(values, omega.at[1, 0].add(h)) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope[1, 0], (above - below) / 2e-5, rtol=1e-7)
    np.testing.assert_allclose(slope[0], 0.0, atol=1e-12)


def test_densities_in_single_precision_in_batches_and_with_padding():
    kernel = RQ([0.7, 1.4], 1.3) + MIXTURE + MAT(0.8, 3.5)
    omega = np.stack([OMEGA, -0.4 * OMEGA], axis=1)
    S = kx.spectral_density(kernel, omega)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), kernel)
    small = kx.spectral_density(single, omega.astype(np.float32))
    assert small.dtype == jnp.float32
    np.testing.assert_allclose(small, S, rtol=2e-5)
    padded = kx.spectral_density(kernel, np.insert(omega, 1, np.nan, axis=0))
    np.testing.assert_allclose(np.delete(padded, 1), S, rtol=1e-14)
    assert np.isnan(padded[1])
    batch = kx.BatchKernel(kernel, 3, 0).replace(alpha=jnp.asarray([1.3, 2.0, 3.0]))
    values = kx.spectral_density(batch, omega)
    np.testing.assert_allclose(values[0], S, rtol=1e-12)
    np.testing.assert_allclose(values[2], kx.spectral_density(batch[2], omega), rtol=1e-12)
    huge = kx.spectral_density(single, np.full((1, 2), 1e30, np.float32))
    np.testing.assert_array_equal(huge, 0.0)
    from kernax.kernels import _spectral_density

    before = _spectral_density._evaluate._cache_size()
    kx.spectral_density(kernel.replace(alpha=2.0), omega)
    assert _spectral_density._evaluate._cache_size() == before


class Exponential(kx.StationaryKernel):
    """A user's kernel that brings its spectral measure along."""

    def profile(self, s):
        return jnp.exp(-jnp.sqrt(s))

    def spectral_density(self, omega):
        w = omega[:, 0] * self.length_scale
        return 2.0 * self.length_scale / (1.0 + w * w)

    def spectral_sample(self, key, d, count):
        return jax.random.cauchy(key, (count, d)) / self.length_scale


class Changed(SE):
    """A subclass with another formula, of which nothing is known."""

    def profile(self, s):
        return jnp.exp(-s)


class Renamed(SE):
    """A subclass with the same formula."""


class ChangedExponential(Exponential):
    def profile(self, s):
        return jnp.exp(-s)


def test_a_users_kernel_brings_its_own():
    omega = OMEGA[:, None]
    S = kx.spectral_density(2.0 * ARD(Exponential(), [0.8]), omega)
    np.testing.assert_allclose(S, 2 * kx.spectral_density(M12(0.8), omega), rtol=1e-14)
    S = kx.spectral_density(Renamed(0.8), omega)
    np.testing.assert_array_equal(S, kx.spectral_density(SE(0.8), omega))
    for k in (Changed(0.8), ChangedExponential(0.8)):
        with pytest.raises(kx.ParameterError, match=r"Changed\w* has no density that is known"):
            kx.spectral_density(k, omega)
        with pytest.raises(kx.ParameterError, match=r"Changed\w* has no spectral measure"):
            kx.random_features(jax.random.key(0), k, 1, 10)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (SE() + PER(), "PeriodicKernel has a spectrum of lines"),
        (2.0 * COS(), "CosineKernel has a spectrum of lines"),
        (SE() + 1.0, "ConstantKernel has a line at frequency 0"),
        (CONST(2.0) * 3.0, "ConstantKernel has a line at frequency 0"),
        (SE() + WN(0.1), "WhiteNoiseKernel belongs to the observations"),
        (ARD(LIN(), [1.0, 2.0]), "LinearKernel is not stationary"),
        (GE(), "GammaExponentialKernel has a density in closed form for two values"),
        (kx.WendlandKernel(), "WendlandKernel has no density that is known"),
        (SE() * M32(), "ProductKernel multiplies kernels that share dimensions"),
        (DIMS(SE(), [0]) * SE(), "ProductKernel multiplies kernels that share dimensions"),
        (SE() ** 2, "PowerKernel multiplies kernels that share dimensions"),
        (DIMS(SE(), [0]), "ActiveDimsKernel does not read dimension 1 of 2"),
        (3.0, "`kernel` of `spectral_density` is a float"),
    ],
)
def test_what_has_no_density_is_named(kernel, text):
    with pytest.raises(kx.ParameterError, match=rf"{text}.*Fix: "):
        kx.spectral_density(kernel, np.zeros((3, 2)))


def test_shapes_of_frequencies():
    with pytest.raises(kx.ShapeError, match=r"`omega` has shape \(\)"):
        kx.spectral_density(SE(), 1.0)
    with pytest.raises(kx.ShapeError, match=r"`length_scale` has shape \(3,\)"):
        kx.spectral_density(SE([1.0, 2.0, 3.0]), np.zeros((4, 2)))
    with pytest.raises(kx.ShapeError, match=r"`length_scales` has shape \(3,\)"):
        kx.spectral_density(ARD(SE(), [1.0, 2.0, 3.0]), np.zeros((4, 2)))
    with pytest.raises(kx.ShapeError, match=r"`means` has shape"):
        kx.spectral_density(MIXTURE, OMEGA)


# --- random features ---------------------------------------------------------------------------

PERIODIC, WAVE = PER([0.7, 1.3], [0.9, 1.7]), COS([1.3, 2.0])
SAMPLED = {
    "matern": MAT([0.8, 1.5], 3.5),
    "rational quadratic": RQ(0.8, 0.4),
    "gamma-exponential": GE(0.9, 1.3),
    "periodic": PERIODIC,
    "mixture times a wave": MIXTURE * WAVE,
    "sum": 2.0 * SE(0.7) + LIN(1.4, [0.3, -0.2]) + 0.3 + 0.5 * WAVE + WN(0.2),
    "product": SE(0.7) * M12(2.0) * PERIODIC,
    "power": (SE([0.7, 1.9]) + WN(0.3) + 0.5) ** 2,
    "ard": ARD(GE(5.0, 2.0) + PERIODIC * WAVE + 2.0 * LIN(1.0, [0.3, 0.1]), [0.7, 1.4]),
    "active dims": DIMS(PER(0.7, 1.3) + LIN(1.2, 0.4), [1]) * 2.0 + DIMS(Exponential(0.8), [-2]),
}
POINTS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.mark.parametrize("name", SAMPLED)
def test_features_estimate_the_matrix_without_bias(name):
    k, keys = SAMPLED[name], jax.random.split(jax.random.key(3), 150)
    drawn = jax.jit(jax.vmap(lambda key: kx.random_features(key, k, 2, 61)(POINTS)))(keys)
    estimates = np.einsum("rni,rmi->rnm", drawn, drawn)
    K = np.asarray(k.gram(POINTS, POINTS))
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(keys))
    difference = np.abs(estimates.mean(axis=0) - K)
    assert (difference < 4.5 * error + 1e-12 * K.max()).all()
    assert error.max() < 0.05 * K.max()
    assert drawn.shape == (150, 6, 61)


EXACT = {
    "constant": (CONST(2.0), 1),
    "linear": (LIN(1.4, [0.3, -0.2]), 2),
    "cosine": (WAVE, 2),
    "cosines multiplied": (WAVE**2 * COS(0.4), 8),
    "composite": (ARD(0.5 * WAVE + DIMS(LIN(1.4, 0.3), [-1]) + 1.2, [0.7, 1.4]), 4),
    "white noise": (WN(0.3), 1),
}


@pytest.mark.parametrize("name", EXACT)
def test_some_features_are_exact(name):
    k, count = EXACT[name]
    for more in (0, 3):
        phi = kx.random_features(jax.random.key(1), k, 2, count + more)
        values = phi(POINTS)
        assert values.shape == (6, count + more)
        K = k.gram(POINTS, POINTS)
        np.testing.assert_allclose(values @ values.T, K, atol=1e-13)
    if count > 1:
        with pytest.raises(
            kx.ParameterError, match=rf"`count` is {count - 1}, expected at least {count}"
        ):
            kx.random_features(jax.random.key(1), k, 2, count - 1)


def test_the_variance_is_exact_and_the_count_is_spent():
    k = SE(0.7) + 2.0 * M32(1.1) + 0.5
    phi = kx.random_features(jax.random.key(1), k, 2, 16)
    assert [len(amplitudes) for amplitudes, *_ in phi.waves] == [7]
    values = np.asarray(phi(POINTS))
    np.testing.assert_allclose((values**2).sum(axis=1), 3.5, rtol=1e-13)
    assert (values[:, -1] == 0).all()
    np.testing.assert_array_equal(values, kx.random_features(jax.random.key(1), k, 2, 16)(POINTS))
    other = kx.random_features(jax.random.key(2), k, 2, 16)(POINTS)
    assert not np.isclose(values[:, :-2], other[:, :-2]).any()
    np.testing.assert_array_equal(phi.features(POINTS), values)
    one = kx.random_features(jax.random.key(1), SE(0.7), 1, 4)
    np.testing.assert_array_equal(one(POINTS[:, 0]), one(POINTS[:, :1]))
    padded = one(np.array([0.3, np.nan]))
    np.testing.assert_allclose(padded[:1], one(np.array([0.3])), rtol=1e-14)
    assert np.isnan(padded[1]).all()


def test_features_far_away_and_in_single_precision():
    k = SE(0.7) * PER(0.8, 1.0) + COS(2.0)
    k = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), k)
    X = (np.round(POINTS * 16) / 16).astype(np.float32)
    phi = kx.random_features(jax.random.key(1), k, 2, 400)
    near, far = (np.asarray(phi(X + shift), float) for shift in (np.float32(0), np.float32(2**18)))
    assert phi(X).dtype == jnp.float32
    np.testing.assert_allclose(far @ far.T, near @ near.T, atol=2e-5)


GRADIENTS = {
    "continuous": RQ(0.8, 1.4) * 0.5 + SM([0.6], [[0.3, 0.8]], [[0.2, 0.1]]),
    "lattice": 2.0 * PERIODIC * ARD(SE(), [0.7, 1.4]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_derivatives_of_features_are_without_bias(name):
    k, (x, y) = GRADIENTS[name], jnp.asarray([[[0.0, 0.0]], [[0.4, -0.3]]])

    def estimate(values, key):
        phi = kx.random_features(key, k.replace(**values), 2, 64)
        return jnp.vdot(phi(x), phi(y), precision="highest")

    keys = jax.random.split(jax.random.key(5), 400)
    values = k.hyperparameters
    drawn = jax.jit(jax.vmap(jax.grad(estimate), in_axes=(None, 0)))(values, keys)
    expected = jax.grad(lambda values: k.replace(**values).pairwise(x[0], y[0]))(values)
    for path, slopes in drawn.items():
        error = np.std(slopes, axis=0, ddof=1) / np.sqrt(len(keys))
        assert np.isfinite(slopes).all()
        assert (np.abs(np.mean(slopes, axis=0) - expected[path]) < 4.5 * error + 1e-12).all()


def test_features_are_a_pytree_kept_in_files_and_of_many_dimensions(tmp_path):
    k = SE([0.7, 1.9]) * PER(1.0, 2.0) + LIN()
    phi = kx.random_features(jax.random.key(1), k, 2, 32)
    kx.save(tmp_path / "phi.json", phi)
    np.testing.assert_array_equal(kx.load(tmp_path / "phi.json")(POINTS), phi(POINTS))
    outside = jax.jit(lambda phi, X: phi(X))(phi, POINTS)
    np.testing.assert_allclose(outside, phi(POINTS), atol=1e-14)
    X = np.random.default_rng(0).normal(size=(5, 80)) / 9
    wide = kx.random_features(jax.random.key(1), SE(1.0), 80, 4000)(X)
    np.testing.assert_allclose(wide @ wide.T, SE(1.0).gram(X), atol=0.1)
    from kernax.kernels import _random_features

    before = _random_features._draw._cache_size()
    kx.random_features(jax.random.key(9), SE([0.6, 1.0]) * PER(1.3, 2.1) + LIN(0.4), 2, 32)
    assert _random_features._draw._cache_size() == before


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (SE() + kx.WendlandKernel(), "WendlandKernel has no spectral measure"),
        (SE() - 0.5 * M32(), "NegKernel has a minus sign"),
        (LIN() * SE(), "LinearKernel is multiplied by a kernel"),
        (kx.BatchKernel(SE(), 3, 0), "BatchKernel is many kernels"),
        ((SE() + M32() + 1.0) ** 8, "a product of sums has"),
        ("SE", "`kernel` of `random_features` is a str"),
    ],
)
def test_what_cannot_be_sampled_is_named(kernel, text):
    with pytest.raises(kx.ParameterError, match=rf"{text}.*Fix: "):
        kx.random_features(jax.random.key(0), kernel, 2, 100)


def test_arguments_of_features():
    key = jax.random.key(0)
    with pytest.raises(kx.ParameterError, match="`key` is 0, expected a key"):
        kx.random_features(0, SE(), 2, 10)
    for d, count, name in ((0, 10, "d"), (2, 2.5, "count"), (True, 10, "d")):
        with pytest.raises(kx.ParameterError, match=f"`{name}` is .* whole number >= 1"):
            kx.random_features(key, SE(), d, count)
    with pytest.raises(kx.ParameterError, match=r"`count` is 3, expected at least 4 .* 2 waves"):
        kx.random_features(key, SE() + M32(), 2, 3)
    with pytest.raises(kx.ShapeError, match=r"`X` has shape \(6, 2\), .* dimension 3"):
        kx.random_features(key, SE(), 3, 10)(POINTS)
    with pytest.raises(kx.ShapeError, match=r"`length_scale` has shape \(2,\)"):
        kx.random_features(key, SE([1.0, 2.0]), 3, 10)
    assert np.isnan(kx.random_features(key, PER(1e-5), 1, 10)(POINTS[:, 0])).all()
