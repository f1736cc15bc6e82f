"""Random features against the matrix that they estimate, in standard errors, with fixed keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.kernels.test_spectral import Changed, ChangedExponential, Exponential

SE, M12, M32, MAT = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel, kx.MaternKernel
RQ, PER, COS, GE = (
    kx.RationalQuadraticKernel,
    kx.PeriodicKernel,
    kx.CosineKernel,
    kx.GammaExponentialKernel,
)
SM, LIN, WN, CONST = (
    kx.SpectralMixtureKernel,
    kx.LinearKernel,
    kx.WhiteNoiseKernel,
    kx.ConstantKernel,
)
ARD, DIMS = kx.ARDKernel, kx.ActiveDimsKernel
MIXTURE = SM([0.6, 1.1], [[0.3, 0.8], [-0.5, 0.0]], [[0.2, 0.1], [0.15, 0.3]])
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
        values = np.asarray(phi(POINTS))
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
    real = np.arange(6) != 1
    padded = np.asarray(one(np.where(real, POINTS[:, 0], np.nan)))
    np.testing.assert_allclose(padded[real], np.asarray(one(POINTS[:, 0]))[real], rtol=1e-14)
    assert np.isnan(padded[1]).all()


def test_features_far_away_and_in_single_precision():
    k = SE(0.7) * PER(0.8, 1.0) + COS(2.0)
    k = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), k)
    X = (np.round(POINTS * 16) / 16).astype(np.float32)
    phi = kx.random_features(jax.random.key(1), k, 2, 400)
    near, far = (np.asarray(phi(X + shift), float) for shift in (np.float32(0), np.float32(2**18)))
    assert phi(X).dtype == jnp.float32
    np.testing.assert_allclose(far @ far.T, near @ near.T, atol=2e-5)


def test_derivatives_of_features_are_without_bias():
    k, (x, y) = 2.0 * PERIODIC * RQ([0.8, 1.5], 1.4), jnp.asarray([[[0.0, 0.0]], [[0.4, -0.3]]])

    def estimate(values, key):
        phi = kx.random_features(key, k.replace(**values), 2, 64)
        return jnp.vdot(phi(x), phi(y), precision="highest")

    keys = jax.random.split(jax.random.key(5), 400)
    values = k.hyperparameters
    drawn = jax.jit(jax.vmap(jax.grad(estimate), in_axes=(None, 0)))(values, keys)
    drawn = jax.tree.map(np.asarray, drawn)
    at = lambda values: k.replace(**values).pairwise(x[0], y[0])
    expected = jax.jit(jax.grad(at))(values)
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
    wide = np.asarray(kx.random_features(jax.random.key(1), SE(1.0), 80, 4000)(X))
    np.testing.assert_allclose(wide @ wide.T, SE(1.0).gram(X), atol=0.1)
    from kernax.kernels import _random_features

    before = _random_features._draw._cache_size()
    kx.random_features(jax.random.key(9), SE([0.6, 1.0]) * PER(1.3, 2.1) + LIN(0.4), 2, 32)
    assert _random_features._draw._cache_size() == before


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (Changed(), "Changed has no spectral measure"),
        (ChangedExponential(), "ChangedExponential has no spectral measure"),
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
