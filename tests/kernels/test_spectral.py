"""Spectral densities against numerical Fourier integrals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import jv

import kernax as kx

SE, M12, M32, M52 = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel, kx.Matern52Kernel
MAT, RQ, PER, COS = kx.MaternKernel, kx.RationalQuadraticKernel, kx.PeriodicKernel, kx.CosineKernel
GE, SM, LIN = kx.GammaExponentialKernel, kx.SpectralMixtureKernel, kx.LinearKernel
CONST, ARD, DIMS = kx.ConstantKernel, kx.ARDKernel, kx.ActiveDimsKernel
WN = kx.WhiteNoiseKernel
MIXTURE = SM([0.6, 1.1], [[0.3, 0.8], [-0.5, 0.0]], [[0.2, 0.1], [0.15, 0.3]])
OMEGA = np.array([0.0, 0.3, 2.7])


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
    omega = np.asarray([[0.0, 0.0], [0.4, -1.1], [2.0, 0.3]])
    f = lambda values, omega: kx.spectral_density(kernel.replace(**values), omega)
    weighted = lambda values, omega: jnp.sum(jnp.asarray([1.0, 2.0, 3.0]) * f(values, omega))
    both = jax.jit(jax.value_and_grad(weighted, (0, 1)))
    total = lambda *at: both(*at)[0]
    values = {path: np.asarray(value) for path, value in kernel.hyperparameters.items()}
    gradient, slope = both(values, omega)[1]
    for path, value in values.items():
        along = np.cos(np.arange(value.size)).reshape(value.shape)
        above, below = (total(values | {path: value + h * along}, omega) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(
            np.sum(gradient[path] * along), (above - below) / 2e-5, rtol=1e-7
        )
    step = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    above, below = (total(values, omega + h * step) for h in (1e-5, -1e-5))
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
    padded = kx.spectral_density(kernel, np.where([[False], [True], [False]], np.nan, omega))
    np.testing.assert_allclose(np.delete(padded, 1), np.delete(S, 1), rtol=1e-14)
    assert np.isnan(padded[1])
    batch = kx.BatchKernel(kernel, 3, 0).replace(alpha=jnp.asarray([1.3, 2.0, 3.0]))
    values = np.asarray(kx.spectral_density(batch, omega))
    np.testing.assert_allclose(values[0], S, rtol=1e-12)
    np.testing.assert_allclose(values[2], kx.spectral_density(batch[2], omega), rtol=1e-12)
    huge = kx.spectral_density(single, np.full((3, 2), 1e30, np.float32))
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
