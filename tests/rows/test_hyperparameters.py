"""Hyperparameters of the wrong shape, sign or place, and those built inside transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx
from tests.table import Laplacian, Tilted

SE, X = kx.SEKernel, np.arange(3.0)
NEGATIVE = -SE(1.0)


class Unsummed(kx.AbstractKernel):
    """The mistake of a first kernel: one number per dimension."""

    scale: Array = kx.positive(1.0)

    def pairwise(self, x, y):
        return jnp.exp(-jnp.square((x - y) / self.scale))


class Forgetful(kx.AbstractKernel):
    scale: Array = kx.positive(1.0)

    def pairwise(self, x, y):
        jnp.exp(-jnp.sum(jnp.square(x - y)))


# H13
@pytest.mark.parametrize(
    "kernel",
    [
        kx.ActiveDimsKernel(NEGATIVE, [0]),
        kx.ARDKernel(1.0 - SE(1.0), [1.0]),
        Tilted(NEGATIVE, 0.3),
        Tilted(SE(1.0) - SE(2.0), 0.3) + SE(1.0),
    ],
    ids=["active dims", "ard", "a user's wrapper", "in a sum"],
)
def test_a_difference_inside_a_wrapper_is_no_covariance(kernel):
    assert kernel.gram(X).shape == (3, 3)
    assert kernel.sign() != 1
    with pytest.raises(kx.NotPSDError, match=r"is not a covariance: NegKernel in .*Fix:"):
        kx.GaussianProcess(kernel)


# H13
def test_wrappers_and_powers_of_covariances_are_covariances():
    for kernel in (Tilted(SE(1.0), 0.3), kx.ActiveDimsKernel(SE(1.0) ** 2, [0]), Laplacian(1.0)):
        assert kernel.sign() == 1
    assert kx.ActiveDimsKernel(NEGATIVE, [0]).sign() == -1


# H15: at n = 3 three values would broadcast over the columns without an error.
@pytest.mark.parametrize(
    "kernel", [kx.ConstantKernel([1.0, 2.0, 3.0]), kx.WhiteNoiseKernel([1.0, 2.0, 3.0])]
)
def test_several_values_where_one_is_meant(kernel):
    text = r"has shape \(3,\), expected one value.*Fix: pass one number"
    for evaluate in (kernel.gram, kernel.diagonal, lambda X: kernel(X[:1], X[1:2])):
        with pytest.raises(kx.ShapeError, match=text):
            evaluate(X)


# H15
@pytest.mark.parametrize(
    ("kernel", "found"),
    [
        (Unsummed(1.0), r"shape \(1,\)"),
        (Laplacian([1.0, 2.0, 3.0]), r"shape \(3,\)"),
        (2.0 * Unsummed(1.0) + SE(1.0), r"shape \(1,\)"),
        (Forgetful(1.0), "None"),
    ],
)
def test_a_formula_that_does_not_give_one_number(kernel, found):
    text = rf"(Unsummed|Laplacian|Forgetful): its formula gives {found} for one pair .*Fix:"
    for evaluate in (
        kernel.gram,
        lambda X: kernel.gram(X, X),
        lambda X: kernel.gram(X, mask=[True] * 3),
        kx.BatchKernel(kernel, 2, 0, False).gram,
        kernel.diagonal,
        kernel.gradient,
    ):
        with pytest.raises(TypeError, match=text):
            evaluate(X)


# H01, H22: a constant inside jit is as wrong as outside.
@pytest.mark.parametrize(
    "build",
    [
        lambda: SE(-1.0).gram(X),
        lambda: SE(np.array([1.0, -1.0])).gram(np.ones((3, 2))),
        lambda: SE(1.0).replace(length_scale=-1).gram(X),
        lambda: kx.static(SE).gram(X, length_scale=-1.0),
    ],
)
def test_constants_are_checked_inside_jit_too(build):
    with pytest.raises(kx.ParameterError, match=r"is -1\.0, expected a finite value > 0"):
        jax.jit(build)()


# H22
def test_lists_of_traced_values():
    P = np.ones((3, 2)) * X[:, None]
    expected = SE([0.5, 2.0]).gram(P)

    @jax.jit
    def evaluate(a, b):
        return (
            kx.ARDKernel(SE(), [a, b]).gram(P),
            SE([a, 2.0]).gram(P),
            SE(1.0).replace(length_scale=(0.5, b)).gram(P),
        )

    for K in evaluate(0.5, 2.0):
        np.testing.assert_allclose(K, expected, rtol=1e-15)


# H22
def test_kernels_are_carried_through_loops_and_branches():
    k = SE(1.0)
    double = lambda c: c.replace(length_scale=2 * c.length_scale)
    _, values = jax.lax.scan(lambda c, _: (double(c), c(0.0, 1.0)), k, None, length=3)
    np.testing.assert_allclose(values, np.exp(-0.5 / np.array([1.0, 2.0, 4.0]) ** 2), rtol=1e-15)
    assert jax.lax.while_loop(lambda c: c.length_scale < 10, double, k).equals(SE(16.0))
    assert jax.lax.cond(True, lambda: SE(1.0), lambda: SE(2.0)).equals(k)
    shape = jax.eval_shape(lambda scale: SE(scale).gram(X), jax.ShapeDtypeStruct((), jnp.float64))
    assert shape.shape == (3, 3)


# H01
@pytest.mark.parametrize(
    "value", [np.longdouble(1.0), jnp.ones((), jnp.float8_e4m3fn), jax.random.key(0)]
)
def test_numbers_of_other_precisions_are_no_hyperparameters(value):
    with pytest.raises(kx.DTypeError, match=r"`length_scale` has dtype .*expected float32.*Fix:"):
        SE(value)


# H02: whole numbers on the device are looked at as well.
def test_integers_of_jax_are_checked():
    with pytest.raises(kx.ParameterError, match=r"`length_scale` is 0\.0"):
        SE(jnp.asarray(0))


# H09
@pytest.mark.parametrize("alpha", [1e-3, 1e4, 1e12])
def test_rational_quadratic_keeps_its_digits_in_32_bits(alpha):
    single = np.float32
    for distance in (0.1, 1.0, 30.0):
        value = kx.RationalQuadraticKernel(single(1.0), single(alpha))(single(0), single(distance))
        a, d = float(single(alpha)), float(single(distance))
        exact = np.exp(-a * np.log1p(d * d / (2 * a)))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, exact, rtol=0, atol=17 * np.finfo(single).eps)


# H16
def test_the_number_of_length_scales_counts_for_gradients_too():
    for k in (kx.ARDKernel(Laplacian(1.0), [1.0, 2.0]), SE([1.0, 2.0])):
        with pytest.raises(kx.ShapeError, match=r"\(2,\).*dimension 3"):
            k.gradient(np.ones((3, 3)))


# H17
def test_dimensions_that_are_not_there_in_nested_choices_and_gradients():
    nested = kx.ActiveDimsKernel(kx.ActiveDimsKernel(SE(1.0), [2]), [0, 1])
    for evaluate in (nested.gram, nested.gradient):
        with pytest.raises(
            kx.ShapeError, match="names dimension 2, but the points have dimension 2"
        ):
            evaluate(np.ones((2, 3)))
