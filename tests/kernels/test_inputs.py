"""Points that are wrong, unusual or extreme: the text of each error, or the right number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx

SE = kx.SEKernel(1.0)
EPS = np.finfo(float).eps


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluate", [lambda a, b: SE(a, b), SE.gram, jax.jit(SE.gram)])
def test_points_of_two_dimensions_do_not_broadcast(evaluate):
    text = r"`x1` has dimension 1 and `x2` has dimension 2 .*\(3, 1\) and \(4, 2\).*Fix:"
    with pytest.raises(kx.ShapeError, match=text):
        evaluate(np.ones((3, 1)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="dimension"):
        evaluate(np.ones((3, 1)), np.ones((4, 2)))


def test_a_row_of_another_dimension_is_refused():
    with pytest.raises(kx.ShapeError, match="`x1` has dimension 3 and `x2` has dimension 2"):
        SE(np.ones((4, 3)), np.ones(2))


def test_one_dimensional_arrays_are_a_point_in_a_call_and_points_in_a_gram():
    x = np.arange(5.0)
    np.testing.assert_allclose(SE(x, x + 1), np.exp(-2.5), rtol=1e-15)
    np.testing.assert_allclose(SE.gram(x), np.exp(-0.5 * (x[:, None] - x) ** 2), rtol=1e-15)
    np.testing.assert_array_equal(SE.gram(x, x), SE.gram(x[:, None], x[:, None]))
    np.testing.assert_array_equal(SE.diagonal(x), np.ones(5))
    assert "**one point** of dimension d" in kx.SEKernel.__call__.__doc__
    assert "**n points of dimension one**" in kx.SEKernel.gram.__doc__


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SE.gram(np.ones((3, 0))), "need at least 1 input dimension"),
        (lambda: SE(np.ones((3, 0)), np.ones((3, 0))), "need at least 1 input dimension"),
        (lambda: SE.gram(np.ones((2, 2, 2, 2))), "at most 3 axes expected"),
        (lambda: SE.gram(1.0), r"shape \(\), expected \(n, d\) or \(n,\)"),
        (lambda: SE.gram([[1.0, 2.0], [3.0]]), "`X` is a ragged list"),
        (lambda: SE(np.ones((2, 3, 1)), np.ones((4, 3, 1))), "batches of 2 and 4 point sets"),
    ],
)
def test_shapes_that_mean_nothing(call, text):
    with pytest.raises(kx.ShapeError, match=text) as caught:
        call()
    assert "Fix:" in str(caught.value)


SIZES = [0, 1, 2, 3, 5, 10, 50]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_every_size_keeps_its_rank(d):
    kernel, Y = kx.SEKernel(1.0) + kx.WhiteNoiseKernel(0.1), np.ones((1, d))
    of_one = lambda X: (kernel.gram(X), kernel.gram(X, Y), kernel.diagonal(X))
    of_all = lambda sets: [of_one(X) for X in sets]
    # In the plane by values; elsewhere as `jit` sees it, which is without programs.
    evaluate = of_all if d == 2 else partial(jax.eval_shape, of_all)
    found = evaluate([np.ones((n, d)) for n in SIZES])
    for n, parts in zip(SIZES, found, strict=True):
        assert [part.shape for part in parts] == [(n, n), (n, 1), (n,)]


# --- data types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"), [([0, 65536], np.int32), ([0, 50000], np.int32), ([0, 16], np.uint8)]
)
def test_integers_do_not_wrap(values, dtype):
    for X in (np.array(values, dtype), jnp.asarray(values, dtype)):
        np.testing.assert_array_equal(
            SE.gram(X), np.eye(2) + np.fliplr(np.eye(2)) * SE(*map(float, values))
        )
        assert SE(X[0], X[1]) < 1e-50


def test_a_formula_called_directly_takes_integers_too():
    x, y = jnp.asarray([0], jnp.int32), jnp.asarray([65536], jnp.int32)
    assert jax.jit(SE.pairwise)(x, y) == 0.0
    np.testing.assert_allclose(
        jax.jit(kx.PeriodicKernel(1.0, 0.7).pairwise)(x, y),
        kx.PeriodicKernel(1.0, 0.7)(0.0, 65536.0),
        rtol=1e-9,
    )
    assert kx.LinearKernel().pairwise(y, y) == 65536.0**2


def test_booleans_and_lists_are_numbers():
    np.testing.assert_allclose(SE.gram([True, False]), SE.gram([1.0, 0.0]))
    np.testing.assert_allclose(SE.gram(np.array([True, False])), SE.gram([1.0, 0.0]))
    np.testing.assert_allclose(SE([1, 2], [3, 4]), np.exp(-4.0), rtol=1e-15)


@pytest.mark.parametrize(
    ("X", "text"),
    [
        (np.array([1j, 2.0]), "`X` has dtype complex128, expected float32 or float64"),
        (jnp.array([1j, 2.0]), "`X` has dtype complex128, expected float32 or float64"),
        (["a", "b"], "`X` has dtype <U1"),
        (np.array([1.0, None]), "`X` has dtype object"),
        (np.array([1.0, 2.0], np.float16), "`X` has dtype float16.*astype"),
        (jnp.array([1.0, 2.0], jnp.bfloat16), "`X` has dtype bfloat16.*astype"),
        (np.array(["2001-01-01"], "M8[D]"), "convert dates to numbers"),
    ],
)
def test_what_is_not_a_real_number_is_refused(X, text):
    with pytest.raises(kx.DTypeError, match=text) as caught:
        SE.gram(X)
    assert isinstance(caught.value, TypeError)
    assert "Fix:" in str(caught.value)


def test_the_result_has_the_promoted_dtype():
    x32, x64 = np.ones(2, np.float32), np.ones(2)
    assert SE.gram(x32).dtype == jnp.float64
    k32 = kx.SEKernel(np.float32(1.0))
    assert k32.gram(x32).dtype == jnp.float32
    assert k32.gram(x64).dtype == jnp.float64
    assert k32(x32, x64).dtype == jnp.float64
    assert k32(1.0, 2.0).dtype == jnp.float64


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, list])
def test_infinity_is_refused_and_named(make):
    X = make([[0.0, 1.0], [2.0, np.inf], [3.0, 4.0]])
    text = "`X` holds 1 infinite value.*row 1, column 1.*NaN marks padding, Inf never does"
    with pytest.raises(kx.InputError, match=text):
        SE.gram(X)
    with pytest.raises(kx.InputError, match="`x2` holds 1 infinite"):
        SE([[0.0, 1.0]], X)
    with pytest.raises(kx.InputError, match="`X` holds 1 infinite"):
        SE.diagonal(X)


def test_traced_infinity_shows_as_nan():
    X = jnp.asarray([0.0, jnp.inf])
    for k in (SE, kx.ConstantKernel(1.0)):
        K = np.asarray(jax.jit(k.gram)(X))
        np.testing.assert_array_equal(K, [[1.0, np.nan], [np.nan, np.nan]])
        assert np.isnan(jax.jit(k.diagonal)(X)[1])
        assert np.isnan(k(X[1], X[0]))  # one pair of JAX arrays is not looked at first


def test_what_fills_masked_rows_is_never_looked_at():
    X, mask = np.arange(4.0), np.array([True, False, True, True])
    for filler in (np.inf, np.nan, 1e30):
        filled = np.where(mask, X, filler)
        for points in (filled, jnp.asarray(filled)):
            np.testing.assert_array_equal(SE.gram(points, mask=mask), SE.gram(X, mask=mask))
    with jax.debug_nans(True):
        SE.gram(X, mask=mask)
        jax.grad(lambda k: jnp.sum(k.gram(X, mask=mask)))(SE)


def test_masked_calls_check_what_plain_calls_check():
    mask, X = np.ones(4, bool), np.zeros((4, 2))
    with pytest.raises(kx.ShapeError, match="`x1` has dimension 2 and `x2` has dimension 1"):
        kx.ConstantKernel(2.0).gram(X, X[:, :1], mask=mask)
    with pytest.raises(kx.ShapeError, match="need at least 1 input dimension"):
        SE.gram(np.zeros((4, 0)), mask=mask)
    batch = SE.gram(np.random.default_rng(0).normal(size=(2, 2, 2)), mask=[True, False])
    np.testing.assert_array_equal(batch, np.stack([np.eye(2)] * 2))


@pytest.mark.parametrize("n", [100, 150])
def test_composites_are_symmetric_in_32_bits_too(n):
    X = np.random.default_rng(1).normal(size=(n, 3)).astype(np.float32)
    single = lambda *values: [np.float32(value) for value in values]
    k = kx.SEKernel(*single(1)) + kx.PeriodicKernel(*single(1, 0.7)) * kx.Matern32Kernel(*single(1))
    linear = kx.ARDKernel(kx.SEKernel() + kx.LinearKernel(*single(1, 0.5)), np.ones(3, np.float32))
    for kernel in (k, linear):
        K = np.asarray(kernel.gram(X))
        assert K.dtype == np.float32
        np.testing.assert_array_equal(K, K.T)
        np.testing.assert_array_equal(np.diag(K), kernel.diagonal(X))


@pytest.mark.parametrize(
    "cls",
    [
        kx.SEKernel,
        kx.Matern12Kernel,
        kx.Matern52Kernel,
        kx.RationalQuadraticKernel,
        kx.PeriodicKernel,
    ],
)
def test_extreme_length_scales_in_32_bits(cls):
    X = np.array([0.0, 1.0, 3.0], np.float32)

    def total(scale):
        second = {kx.RationalQuadraticKernel: 2.0, kx.PeriodicKernel: 0.7}
        K = cls(scale, *([np.float32(second[cls])] if cls in second else [])).gram(X)
        return jnp.sum(K), K

    evaluate = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, K), slope = evaluate(np.float32(1e-25))
    np.testing.assert_array_equal(K, np.eye(3))
    assert slope == 0.0
    (_, K), slope = evaluate(np.float32(1e25))
    np.testing.assert_array_equal(K, np.ones((3, 3)))
    assert slope == 0.0


def test_points_very_far_apart_have_covariance_zero_and_no_nan():
    X = np.array([0.0, 1e200, -1e200])
    for k in (kx.SEKernel(1.0), kx.Matern52Kernel([1.0]), kx.Matern12Kernel(1e-3)):
        np.testing.assert_array_equal(k.gram(X), np.eye(3))
        gradient = jax.jit(jax.grad(lambda k: jnp.sum(k.gram(X))))(k)
        assert np.isfinite(gradient.length_scale).all()


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4, 1e8, 1e12])
def test_rational_quadratic_keeps_its_digits(alpha):
    import mpmath

    with mpmath.workdps(50):
        exact = float((1 + 1 / (2 * mpmath.mpf(alpha))) ** (-mpmath.mpf(alpha)))
    value = kx.RationalQuadraticKernel(1.0, alpha)(0.0, 1.0)
    np.testing.assert_allclose(value, exact, rtol=17 * EPS)


def test_rational_quadratic_tends_to_the_squared_exponential():
    np.testing.assert_allclose(
        kx.RationalQuadraticKernel(1.0, 1e8)(0.0, 1.0), 0.60653066, rtol=1e-8
    )


@pytest.mark.parametrize("period", [1.0, 0.3, 2.5])
def test_periodic_keeps_its_phase_far_away(period):
    import mpmath

    k, far = kx.PeriodicKernel(1.0, period), 1e7
    for x, y in ((0.0, far), (far, 0.1), (far, far + 0.375)):
        with mpmath.workdps(50):
            phase = mpmath.pi * (mpmath.mpf(x) - mpmath.mpf(y)) / mpmath.mpf(period)
            exact = float(mpmath.exp(-2 * mpmath.sin(phase) ** 2))
        np.testing.assert_allclose(k(x, y), exact, rtol=0, atol=18 * EPS)
    assert kx.PeriodicKernel(1.0, 1.0)(0.0, far) == 1.0


def test_periodic_and_matern_are_positive_definite_in_the_plane():
    X = np.random.default_rng(0).uniform(0, 5, size=(80, 2))
    for k in (kx.PeriodicKernel(1.0, 1.0), kx.Matern12Kernel(1.0), kx.Matern32Kernel(1.0)):
        K = np.asarray(k.gram(X))
        assert np.linalg.eigvalsh(K)[0] >= -80 * EPS * np.trace(K)
    np.testing.assert_allclose(kx.Matern12Kernel(1.0)([0.0, 0.0], [3.0, 4.0]), np.exp(-5.0))


def test_exactly_representable_shifts_change_nothing():
    X = np.arange(40) / 32.0
    for k in (kx.SEKernel(0.3), kx.Matern52Kernel([0.3]), kx.PeriodicKernel(1.0, 0.5)):
        np.testing.assert_allclose(k.gram(X + 2.0**20), k.gram(X), rtol=0, atol=18 * EPS)


def test_many_dimensions(points):
    X = np.random.default_rng(0).normal(size=(5, 100))
    scale = np.linspace(5.0, 15.0, 100)
    D = ((X[:, None] - X[None]) / scale) ** 2
    np.testing.assert_allclose(kx.SEKernel(scale).gram(X), np.exp(-0.5 * D.sum(-1)), rtol=1e-12)
    np.testing.assert_allclose(kx.LinearKernel().gram(X), X @ X.T, rtol=1e-12, atol=1e-12)
    K = np.asarray((kx.LinearKernel() * kx.PeriodicKernel(9.0, 3.0)).gram(X))
    np.testing.assert_array_equal(K, K.T)
