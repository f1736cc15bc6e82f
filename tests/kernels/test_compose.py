"""Operators, white noise, and the formula that `repr` prints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx

SE, WN, PER, RQ = (
    kx.SEKernel,
    kx.WhiteNoiseKernel,
    kx.PeriodicKernel,
    kx.RationalQuadraticKernel,
)


# --- operators ----------------------------------------------------------------------------------


def test_operators_make_the_classes_of_their_names():
    a, b = SE(1.0), kx.Matern32Kernel(2.0)
    assert isinstance(a + b, kx.SumKernel)
    assert isinstance(a * b, kx.ProductKernel)
    assert isinstance(-a, kx.NegKernel)
    assert isinstance(a**2, kx.PowerKernel)
    assert isinstance((a - b).right_kernel, kx.NegKernel)
    assert (a + b).left_kernel is a
    assert (a * b).right_kernel is b
    assert (-a).inner_kernel is a
    assert (a**3).exponent == 3


def test_scalars_become_constant_kernels():
    k = 2.0 * SE(1.0)
    assert isinstance(k.left_kernel, kx.ConstantKernel)
    assert float(k.left_kernel.value) == 2.0
    assert isinstance((SE(1.0) + 3).right_kernel, kx.ConstantKernel)
    negative = (-2.0 * SE(1.0)).left_kernel
    assert isinstance(negative, kx.NegKernel)
    assert float(negative.inner_kernel.value) == 2.0
    for scalar in (2, np.float32(2), np.float64(2), np.array(2.0), jnp.asarray(2.0)):
        for k in (scalar * SE(1.0), SE(1.0) * scalar):
            assert isinstance(k, kx.ProductKernel)
            np.testing.assert_allclose(k(0.0, 1.0), 2 * np.exp(-0.5), rtol=1e-7)
    traced = jax.jit(lambda c: (c * SE(1.0))(0.0, 1.0))(-2.0)
    np.testing.assert_allclose(traced, -2 * np.exp(-0.5), rtol=1e-15)


def test_a_list_of_kernels_can_be_summed():
    k = sum([SE(1.0), SE(2.0), 1.0])
    np.testing.assert_allclose(k(0.0, 1.0), np.exp(-0.5) + np.exp(-0.125) + 1, rtol=1e-15)


def test_arrays_and_other_things_do_not_combine():
    with pytest.raises(kx.ShapeError, match=r"array of shape \(2,\).*Fix:"):
        SE(1.0) * np.array([1.0, 2.0])
    with pytest.raises(kx.ShapeError, match=r"array of shape \(2,\)"):
        np.array([1.0, 2.0]) * SE(1.0)
    assert kx.SEKernel.__array_ufunc__ is None
    for bad in ("2", None, object()):
        with pytest.raises(TypeError, match="unsupported operand"):
            SE(1.0) + bad
    with pytest.raises(kx.ParameterError, match=r"`value` is 0\.0, expected a finite value > 0"):
        0.0 * SE(1.0)
    with pytest.raises(kx.ParameterError, match="must be finite"):
        np.inf * SE(1.0)
    with pytest.raises(kx.DTypeError, match="complex"):
        1j * SE(1.0)


@pytest.mark.parametrize("exponent", [0, -1, 2.5, "2", True, None])
def test_powers_are_whole_and_positive(exponent):
    with pytest.raises(kx.ParameterError, match=r"int >= 1.*Fix:"):
        SE(1.0) ** exponent


def test_a_power_takes_any_integer_type():
    assert (SE(1.0) ** np.int64(2)).exponent == 2


def test_nested_composites_keep_their_brackets(points):
    a, b, c = SE(0.5), SE(1.0), SE(2.0)
    A, B, C = (np.asarray(k.gram(points)) for k in (a, b, c))
    np.testing.assert_allclose((a * (b + c)).gram(points), A * (B + C), rtol=1e-14)
    np.testing.assert_allclose((a * b + c).gram(points), A * B + C, rtol=1e-14)
    np.testing.assert_allclose((a - (b - c)).gram(points), A - B + C, rtol=1e-14)
    np.testing.assert_allclose(((a + b) ** 2 * c).gram(points), (A + B) ** 2 * C, rtol=1e-14)


def test_signs_are_known_for_composites():
    k, c = SE(1.0), kx.ConstantKernel(2.0)
    assert [x.sign() for x in (k, -k, kx.NegKernel(-k), k + c, k - c, k * -c, -k * -c)] == [
        1,
        -1,
        1,
        1,
        0,
        -1,
        1,
    ]
    assert [((-k) ** 2).sign(), ((-k) ** 3).sign(), (-k - c).sign()] == [1, -1, -1]


# --- white noise --------------------------------------------------------------------------------


def test_white_noise_belongs_to_the_observation():
    k = SE(1.0) + WN(0.3)
    X = np.array([0.0, 0.0, 1.0])  # two observations at one place
    smooth = np.asarray(SE(1.0).gram(X))
    np.testing.assert_array_equal(k.gram(X), smooth + 0.3 * np.eye(3))
    np.testing.assert_array_equal(k(X[:, None]), smooth + 0.3 * np.eye(3))
    np.testing.assert_array_equal(k.gram(X, X), smooth)
    np.testing.assert_array_equal(k(X[:, None], X[:, None]), smooth)
    assert k(0.0, 0.0) == 1.0
    assert k(0.0) == 1.3
    assert k.pairwise(jnp.zeros(1), jnp.zeros(1)) == 1.0
    np.testing.assert_array_equal(k.diagonal(X), np.full(3, 1.3))
    np.testing.assert_array_equal(WN(0.3).gram(X), 0.3 * np.eye(3))
    np.testing.assert_array_equal(WN(0.3).gram(X, X), np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("kernel", "diagonal"),
    [
        ((SE(1.0) + WN(0.3)) ** 2, 1.69),
        (2.0 * (SE(1.0) + WN(0.3)), 2.6),
        (SE(1.0) * WN(0.3), 0.3),
        (SE(1.0) - WN(0.3), 0.7),
        (kx.ARDKernel(SE(1.0) + WN(0.3), [2.0]), 1.3),
        (kx.ActiveDimsKernel(SE(1.0) * (WN(0.3) + 1.0), [0]), 1.3),
    ],
)
def test_the_diagonal_is_the_formula_with_noise_present(kernel, diagonal):
    X = np.array([[0.0], [0.0], [1.0]])
    np.testing.assert_allclose(np.diag(kernel.gram(X)), diagonal, rtol=1e-15)
    np.testing.assert_allclose(kernel.diagonal(X), diagonal, rtol=1e-15)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_array_equal(np.asarray(kernel.gram(X))[off], np.asarray(kernel(X, X))[off])


def test_the_noise_variance_has_a_gradient():
    X = jnp.arange(3.0)
    total = lambda v: jnp.sum(((SE(1.0) + WN(v)) ** 2).gram(X))
    slope = jax.jit(jax.grad(total))(0.3)
    np.testing.assert_allclose(slope, 3 * 2 * 1.3, rtol=1e-14)


# --- the formula as text ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (66.0**2 * SE(67), "4356 * SE(length_scale=67)"),
        (SE(1) + PER(1.3, 1), "SE(length_scale=1) + Periodic(length_scale=1.3, period=1)"),
        (SE(1) * (SE(2) + 1), "SE(length_scale=1) * (SE(length_scale=2) + 1)"),
        (SE(1) - SE(2), "SE(length_scale=1) - SE(length_scale=2)"),
        (SE(1) - (SE(2) - 1), "SE(length_scale=1) - (SE(length_scale=2) - 1)"),
        (-SE(1), "-SE(length_scale=1)"),
        (-2 * SE(1), "(-2) * SE(length_scale=1)"),
        ((SE(1) + 1) ** 2, "(SE(length_scale=1) + 1)**2"),
        ((SE(1) ** 2) ** 3, "(SE(length_scale=1)**2)**3"),
        (SE([1, 2.5]), "SE(length_scale=[1, 2.5])"),
        (kx.ARDKernel(SE(1) + WN(2), [1, 2]),
         "ARD(SE() + WhiteNoise(variance=2), length_scales=[1, 2])"),
        (kx.ActiveDimsKernel(RQ(1, 2), [0, -1]),
         "ActiveDims(RationalQuadratic(length_scale=1, alpha=2), active_dims=(0, -1))"),
        (SE(np.ones(20)), "SE(length_scale=float64[20])"),
    ],
)  # fmt: skip
def test_repr_is_the_formula(kernel, text):
    assert repr(kernel) == text


def test_format_sets_the_digits():
    assert f"{SE(1 / 3):.3g}" == "SE(length_scale=0.333)"


def test_repr_works_on_traced_kernels():
    seen = []
    jax.jit(lambda k: seen.append(repr(k)) or k(0.0, 1.0))(SE(1.0))
    assert seen == ["SE(length_scale=float64[])"]


def test_repr_reads_back():
    k = 66.0**2 * SE(67.0) + 2.4**2 * SE(90.0) * PER(1.3, 1.0) - (RQ(1.2, 0.78) + 0.5) ** 2
    names = {"SE": SE, "Periodic": PER, "RationalQuadratic": RQ}
    assert eval(repr(k), names).equals(k)
