"""Cosine and spectral mixture kernels."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx
from kernax.kernels._cycles import both_waves, cosine, sine
from tests.cases.stationary import MIXTURE

EPS = np.finfo(float).eps
MAT, WEND, GE = kx.MaternKernel, kx.WendlandKernel, kx.GammaExponentialKernel
COS, SM = kx.CosineKernel, kx.SpectralMixtureKernel


@pytest.mark.optimised
def test_plane_waves_keep_their_digits_far_away():
    assert COS(1.0)(0.0, 1e7) == 1.0
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2)) * 1e7
    k = SM([0.6, 1.1], [[0.3, 0.8], [-0.5, 0.0]], [[2e-8, 1e-8], [1e-9, 1e-8]])
    wave = COS([0.3, 1.7])
    with mpmath.workdps(50):
        M = np.vectorize(lambda value: mpmath.mpf(float(value)), otypes=[object])
        cos, exp = (np.vectorize(f, otypes=[object]) for f in (mpmath.cos, mpmath.exp))
        D = M(X)[:, None] - M(X)
        phase = lambda frequency: cos(2 * mpmath.pi * np.sum(D * frequency, axis=-1))
        exact = sum(
            w * exp(-2 * mpmath.pi**2 * np.sum((D * s) ** 2, axis=-1)) * phase(m)
            for w, m, s in zip(M(k.weights), M(k.means), M(k.scales), strict=True)
        )
        error = np.abs(M(k.gram(X)) - exact).max()
        wave_error = np.abs(M(wave.gram(X)) - phase(1 / M(wave.period))).max()
    assert error <= 18 * EPS * 1.7
    assert wave_error <= 18 * EPS


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sines_and_cosines_to_the_last_bits(dtype):
    half = np.r_[-0.5, -1e-30, 0.0, 1e-9, 0.25, 0.5, np.linspace(-0.5, 0.5, 999)].astype(dtype)
    with mpmath.workdps(30):
        angles = [mpmath.pi * mpmath.mpf(float(x)) for x in half]
        sin, cos = (np.array([float(f(a)) for a in angles]) for f in (mpmath.sin, mpmath.cos))
    eps = np.finfo(dtype).eps
    half = jnp.asarray(half)
    np.testing.assert_allclose(sine(half), sin, rtol=1.5 * eps)
    np.testing.assert_allclose(cosine(half), cos, rtol=0, atol=1.5 * eps)
    np.testing.assert_allclose(both_waves(0.5 * half), (cos, sin), rtol=0, atol=3 * eps)


def test_derivatives_of_sines_and_cosines():
    half = jnp.asarray([-0.5, -0.3, 0.0, 0.1, 0.5])
    pairs = [(sine, lambda t: jnp.sin(jnp.pi * t)), (cosine, lambda t: jnp.cos(jnp.pi * t))]
    for ours, plain in pairs:
        for _ in range(3):
            ours, plain = jax.grad(ours), jax.grad(plain)
            found, expected = (jax.vmap(f)(half) for f in (ours, plain))
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("k", [COS([0.3, 1.7]), SM(*MIXTURE)], ids=["cosine", "mixture"])
def test_shifts_that_are_exact_change_nothing(k):
    X = np.round(np.random.default_rng(0).normal(size=(20, 2)) * 64) / 64
    np.testing.assert_allclose(k.gram(X + 2.0**20), k.gram(X), atol=36 * EPS)
    K = np.asarray(k.gram(np.tile(X, (20, 1))))
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(np.diag(K), K[0, 0])


def test_a_plane_wave_has_rank_two_in_any_dimension():
    X = np.random.default_rng(0).normal(size=(30, 4)) * 3
    values = np.linalg.eigvalsh(COS([0.3, 1.7, 2.2, 5.0]).gram(X))
    assert values[0] > -1e-13
    np.testing.assert_allclose(values[:-2], 0.0, atol=1e-13)


def test_a_mixture_has_its_weights_on_the_diagonal():
    weights = [0.1, 0.2, 0.3]
    k = SM(weights, [0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert k(0.3, 0.3) == 0.1 + 0.2 + 0.3
    K = np.asarray(k.gram(np.linspace(0, 1, 5)))
    np.testing.assert_array_equal(K.diagonal(), 0.1 + 0.2 + 0.3)
    one = SM([1.0], [0.0], [1 / (2 * np.pi)])
    np.testing.assert_allclose(one(0.0, 0.8), kx.SEKernel(1.0)(0.0, 0.8), rtol=1e-15)
    assert SM()(0.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("weights", "means", "scales"),
    [
        (1.0, [0.1], [0.1]),
        ([1.0, 1.0], [0.1], [0.1, 0.2]),
        ([1.0], [0.1], [[0.1, 0.2]]),
        ([1.0], [[[0.1]]], [[[0.1]]]),
        ([[1.0]], [[0.1]], [[0.1]]),
    ],
)
def test_shapes_of_a_mixture_must_fit(weights, means, scales):
    with pytest.raises(kx.ShapeError, match=r"`weights` has shape .* expected \(q,\), \(q, d\)"):
        SM(weights, means, scales)


def test_shapes_must_fit_the_points(points):
    with pytest.raises(kx.ShapeError, match=r"`means` has shape \(1,\) .* dimension 2.*\(1, 2\)"):
        SM().gram(points)
    with pytest.raises(kx.ShapeError, match=r"`means` has shape \(2, 2\) .* dimension 1"):
        SM(*MIXTURE).gram(points[:, :1])
    with pytest.raises(kx.ShapeError, match=r"`period` has shape \(3,\).* dimension 2"):
        COS([1.0, 2.0, 3.0]).gram(points)
    for k in (COS(1.0), SM(), WEND(2, 1.0), GE(), MAT()):
        with pytest.raises(kx.ShapeError, match=r"dimension 1 and .* dimension 2"):
            k.gram(points[:, :1], points)
    for k in (WEND(2, [1.0, 2.0, 3.0]), GE([1.0, 2.0, 3.0]), MAT([1.0, 2.0, 3.0])):
        with pytest.raises(kx.ShapeError, match=r"`length_scale` has shape \(3,\).* dimension 2"):
            k.gram(points)


def test_a_mixture_is_built_from_tracers_and_in_batches(points):
    X = jnp.asarray(points)
    build = lambda w, m: SM([w, 1.1], [[m, 0.8], [-0.5, 0.0]], MIXTURE[2]).gram(X)
    np.testing.assert_allclose(jax.jit(build)(0.6, 0.3), SM(*MIXTURE).gram(X), rtol=1e-14)
    batch = kx.BatchKernel(SM(*MIXTURE), 3, {"weights": 0}, batch_over_inputs=False)
    batch = batch.replace(weights=jnp.asarray([[0.6, 1.1], [1.0, 1.0], [0.6, 2.2]]))
    K = batch.gram(X)
    np.testing.assert_allclose(K[0], SM(*MIXTURE).gram(X), rtol=1e-14)
    np.testing.assert_allclose(K[2], SM([0.6, 2.2], *MIXTURE[1:]).gram(X), rtol=1e-14)
    assert batch[1].equals(SM([1.0, 1.0], *MIXTURE[1:]))
