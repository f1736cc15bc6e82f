"""Length-scales that vary, change points, and kernels of transformed inputs."""

import pickle

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernax as kx

T, SE, M32, WN = kx.transforms, kx.SEKernel, kx.Matern32Kernel, kx.WhiteNoiseKernel
GIBBS, CHANGE, WARPED = kx.GibbsKernel, kx.ChangePointKernel, kx.WarpedKernel
EPS = np.finfo(float).eps


def plus_one(x):
    """A length-scale as a plain function, in the dtype of the point."""
    return jnp.asarray(0.5, x.dtype) + jnp.abs(x[0])


def plus_one_each(x):
    return jnp.asarray(0.5, x.dtype) + jnp.abs(x)


# --- Gibbs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5, 70])
def test_a_constant_length_scale_is_the_squared_exponential(d):
    X = np.random.default_rng(0).normal(size=(5, d)) / np.sqrt(d)
    one = GIBBS(lambda x: 0.7)
    each = GIBBS(lambda x: jnp.full(d, 0.7))
    for k in (one, each):
        np.testing.assert_allclose(k.gram(X), SE(0.7).gram(X), rtol=8 * EPS)


@pytest.mark.optimised
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 3, 70])
@pytest.mark.parametrize("function", [plus_one, plus_one_each])
def test_the_formula_in_fifty_digits(d, function, dtype):
    X, Y = np.random.default_rng(0).normal(size=(2, 4, d)).astype(dtype) * dtype(d**-0.5)
    X[2] = Y[3]
    k = GIBBS(function)
    K, eps = np.asarray(k.gram(X, Y)), np.finfo(dtype).eps
    assert K.dtype == dtype
    for i, j in np.ndindex(4, 4):
        a, b = (dtype(0.5) + np.abs(z if function is plus_one_each else z[0]) for z in (X[i], Y[j]))
        with mpmath.workdps(50):
            factor, exponent = mpmath.mpf(1), mpmath.mpf(0)
            for row in zip(X[i], Y[j], *(np.broadcast_to(s, d) for s in (a, b)), strict=True):
                u, v, p, q = (mpmath.mpf(float(number)) for number in row)
                factor *= mpmath.sqrt(2 * p * q / (p**2 + q**2))
                exponent += (u - v) ** 2 / (p**2 + q**2)
            error = abs(mpmath.mpf(float(K[i, j])) - factor * mpmath.exp(-exponent))
            assert error <= (16 + d) * eps
    assert K[2, 3] == 1.0
    np.testing.assert_array_equal(k.diagonal(X), np.ones(4, dtype))
    np.testing.assert_array_equal(np.diag(k.gram(X)), np.ones(4, dtype))


def test_derivatives_at_coincident_points_are_those_by_hand():
    # With g = grad log l: k = 1 - |u|^2 / (2 l^2) - d (g.u)^2 / 4 + ..., u = x - y.
    g, x = np.array([0.3, -0.8]), jnp.asarray([0.4, -1.3])
    k = GIBBS(T.LogLinear(g, -0.2))
    first = jax.jit(jax.grad(k.pairwise, argnums=(0, 1)))(x, x)
    np.testing.assert_allclose(first, np.zeros((2, 2)), atol=4 * EPS)
    mixed = jax.jit(jax.jacfwd(jax.grad(k.pairwise), argnums=1))(x, x)
    scale = np.exp(g @ np.asarray(x) - 0.2)
    np.testing.assert_allclose(mixed, np.eye(2) / scale**2 + np.outer(g, g), rtol=1e-13)


@jax.jit
def slopes_of_the_sum(k, X):
    return jax.grad(lambda k, X: jnp.sum(k.gram(X)), argnums=(0, 1))(k, X)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_extreme_length_scales_in_float32(scale):
    X = jnp.asarray([[0.0], [1.0], [1.0]], jnp.float32)
    k = GIBBS(T.LogLinear(np.float32(0), np.float32(np.log(scale))))
    far = np.float32(scale > 1)
    np.testing.assert_array_equal(k.gram(X), [[1, far, far], [far, 1, 1], [far, 1, 1]])
    slopes, points = slopes_of_the_sum(k, X)
    np.testing.assert_allclose(points, 0.0, atol=1e-20)
    for slope in slopes.hyperparameters.values():
        np.testing.assert_allclose(slope, 0.0, atol=1e-5)


def test_length_scales_far_apart_have_finite_derivatives():
    # 5e18 at one point and 2e-25 at the other: neither their squares nor 2 l l' / l^2 are numbers.
    X = np.stack([np.zeros(3, np.float32), np.ones(3, np.float32)])
    rows = -100 * np.eye(3, dtype=np.float32)
    for weights in (rows, rows[0]):
        k = GIBBS(T.LogLinear(weights, np.float32(43)))
        K, gradient = jax.jit(jax.value_and_grad(lambda k: jnp.sum(k.gram(X))))(k)
        assert K == 2.0
        assert all(np.isfinite(g).all() for g in gradient.hyperparameters.values())


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_length_scale_that_is_none_gives_nan_where_it_is(value):
    k = GIBBS(lambda x: jnp.where(x[0] > 1, value, 0.7))
    K = np.asarray(k.gram([0.0, 0.5, 2.0]))
    assert np.isnan(K[2]).all()
    assert np.isnan(K[:, 2]).all()
    np.testing.assert_allclose(K[:2, :2], SE(0.7).gram([0.0, 0.5]), rtol=4 * EPS)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: jnp.ones(2), r"returned shape \(2,\) for a point of shape \(3,\).*or \(3,\)"),
        (lambda x: jnp.ones((3, 3)), r"returned shape \(3, 3\) for a point of shape \(3,\)"),
        (lambda x: jnp.ones(0), r"returned shape \(0,\)"),
        (lambda x: None, r"returned NoneType for a point of shape \(3,\).*Fix: write it for one"),
    ],
)
def test_a_length_scale_of_another_shape(function, text):
    with pytest.raises(kx.ShapeError, match=rf"`length_scale_function` {text}"):
        GIBBS(function).gram(np.ones((4, 3)))


class Mutable:
    """A callable that cannot be told from others by a hash."""

    __hash__ = None

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, r"is 0\.5, expected a function of one point.*Fix: pass a function"),
        (None, "is None, expected a function"),
        (T.LogLinear, "is the class LogLinear, expected a function of one point"),
        (SE(), r"is SE\(length_scale=1\), expected a function of one point"),
        (Mutable(), r"is an unhashable Mutable.*Fix: write it as an equinox\.Module"),
    ],
)
def test_what_is_no_map(value, text):
    with pytest.raises(kx.ParameterError, match=f"`length_scale_function` {text}"):
        GIBBS(value)
    with pytest.raises(kx.ParameterError, match=f"`warp` {text}"):
        WARPED(SE(), value)


@pytest.mark.parametrize("make", [GIBBS, lambda f: WARPED(SE(), f)], ids=["gibbs", "warped"])
def test_a_map_is_evaluated_once_per_point(make):
    k = make(lambda x: 1.0 + jnp.arctan(x[0]) ** 2)
    X, Y = jnp.ones((5, 2)), jnp.ones((7, 2))
    found = jax.make_jaxpr(lambda X, Y: k.matrix(X, Y))(X, Y)
    shapes = [eqn.outvars[0].aval.shape for eqn in found.jaxpr.eqns if eqn.primitive.name == "atan"]
    assert sorted(shapes) == [(5,), (7,)]
    assert str(jax.make_jaxpr(lambda X: k.matrix(X, X))(X)).count(" atan ") == 1


# --- change points ------------------------------------------------------------------------------


def test_on_either_side_it_is_one_of_the_kernels():
    k = CHANGE(SE(0.6), M32(1.2), 10.0, 2.0)
    left, right = np.array([-30.0, -29.5]), np.array([40.0, 40.5])
    np.testing.assert_allclose(k.gram(left), SE(0.6).gram(left), rtol=4 * EPS)
    np.testing.assert_allclose(k.gram(right), M32(1.2).gram(right), rtol=4 * EPS)
    # What is left of the other kernel keeps its digits.
    weights = CHANGE(1e-300, 1.0, 10.0, 2.0).diagonal([-20.0])
    np.testing.assert_allclose(weights, np.exp(-120.0), rtol=1e-12)
    before = CHANGE(1.0, 1e-300, 10.0, 2.0).diagonal([40.0])
    np.testing.assert_allclose(before, np.exp(-120.0), rtol=1e-12)


def test_it_changes_along_its_dimension_only():
    k, X = CHANGE(SE(0.6), M32(1.2), 0.3, 2.0, dim=-1), np.random.default_rng(0).normal(size=(4, 3))
    s = 1 / (1 + np.exp(-2.0 * (X[:, 2] - 0.3)))
    expected = np.outer(1 - s, 1 - s) * SE(0.6).gram(X) + np.outer(s, s) * M32(1.2).gram(X)
    np.testing.assert_allclose(k.gram(X), expected, rtol=1e-13)
    assert k.dim == -1


@pytest.mark.parametrize("dim", [3, -4])
def test_a_dimension_that_is_not_there(dim):
    k = CHANGE(SE(), M32(), 0.0, 1.0, dim)
    text = rf"`dim` names dimension {dim}, but the points have dimension 3.*from -3 to 2"
    for evaluate in (k.gram, jax.jit(k.gram), k.diagonal, kx.ARDKernel(k, np.ones(3)).gram):
        with pytest.raises(kx.ShapeError, match=text):
            evaluate(np.ones((4, 3)))


@pytest.mark.parametrize("dim", [0.5, True, "x", None, [0]])
def test_dimensions_that_mean_nothing(dim):
    with pytest.raises(kx.ParameterError, match=r"`dim` got .*, expected a whole number"):
        CHANGE(SE(), M32(), 0.0, 1.0, dim)


def test_parameters_of_a_change_point():
    with pytest.raises(kx.ParameterError, match=r"`steepness` is -1\.0, expected a finite value >"):
        CHANGE(SE(), M32(), 0.0, -1.0)
    with pytest.raises(kx.ShapeError, match=r"`location` has shape \(2,\), expected \(\)"):
        CHANGE(SE(), M32(), [0.0, 1.0], 1.0).gram(np.ones((4, 2)))
    assert np.isnan(jax.jit(lambda s: CHANGE(SE(), M32(), 0.0, s)(0.0, 1.0))(-1.0))


def test_signs_and_smoothness_come_from_the_parts():
    assert CHANGE(SE(), M32(), 0.0, 1.0).sign() == 1
    assert CHANGE(-SE(), -M32(), 0.0, 1.0).sign() == -1
    assert CHANGE(SE(), -M32(), 0.0, 1.0).sign() == 0
    assert CHANGE(SE(), M32(), 0.0, 1.0).differentiability == 1
    assert WARPED(-M32(), jnp.tanh).sign() == -1
    assert WARPED(kx.Matern52Kernel(), jnp.tanh).differentiability == 2
    assert GIBBS(plus_one).sign() == 1
    for k in (CHANGE(SE(), M32(), 0.0, 1.0), WARPED(SE(), jnp.tanh), GIBBS(plus_one)):
        assert not k.stationary
        assert not k.symmetric_rounding


# --- warped kernels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warp", "image"),
    [
        (lambda x: x, lambda X: X),
        (lambda x: x[0] * x[1], lambda X: X[:, :1] * X[:, 1:]),
        (lambda x: [x[1], x[0] ** 3, x[0]], lambda X: np.c_[X[:, 1], X[:, 0] ** 3, X[:, 0]]),
        (jnp.sin, np.sin),
    ],
    ids=["identity", "number", "list", "sine"],
)
def test_a_plain_function(warp, image):
    X = np.random.default_rng(0).normal(size=(4, 2))
    k = WARPED(SE(0.7) + WN(0.1), warp)
    np.testing.assert_allclose(k.gram(X), (SE(0.7) + WN(0.1)).gram(image(X)), rtol=1e-13)
    np.testing.assert_allclose(k(X[0], X[1]), SE(0.7)(image(X)[0], image(X)[1]), rtol=1e-13)


@pytest.mark.parametrize("warp", [lambda x: x[:, None], lambda x: {"a": x}, lambda x: x[:0]])
def test_an_image_that_is_no_point(warp):
    with pytest.raises(kx.ShapeError, match=r"`warp` returned .* for a point of shape"):
        WARPED(SE(), lambda x: warp(x)).gram(np.ones((4, 2)))


def test_a_complex_image():
    with pytest.raises(kx.DTypeError, match=r"`warp\(x\)` has dtype complex128"):
        WARPED(SE(), lambda x: jax.lax.complex(x, x)).gram(np.ones((4, 2)))


def test_a_function_leaves_the_kernel_an_argument_of_jit():
    X = np.random.default_rng(0).normal(size=(4, 2))
    for k in (WARPED(SE(0.7), plus_one_each), GIBBS(plus_one) * SE(0.7)):
        total = lambda k: (jnp.sum(K := k.gram(X)), K)
        (_, K), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(k)
        np.testing.assert_allclose(K, k.gram(X), rtol=1e-13)
        assert np.isfinite(next(iter(slope.hyperparameters.values())))
        assert pickle.loads(pickle.dumps(k)).equals(k)


def test_what_a_function_closes_over_has_derivatives():
    f = lambda s: WARPED(SE(), lambda x: s * x)(0.0, 1.0)
    np.testing.assert_allclose(jax.jit(jax.grad(f))(1.3), -1.3 * np.exp(-(1.3**2) / 2), rtol=1e-13)


def test_derivatives_pass_through_the_map():
    k, (x, y) = WARPED(SE(0.7), lambda x: x**3), (0.4, 0.9)
    slope = -(x**3 - y**3) / 0.7**2 * 3 * x**2 * float(k(x, y))
    np.testing.assert_allclose(k.gradient([x], [y])[0, 0], [slope], rtol=1e-13)
    second = jax.jit(jax.grad(jax.grad(lambda x, y: k(x, y), 0), 1))(x, x)
    np.testing.assert_allclose(second, (3 * x**2 / 0.7) ** 2, rtol=1e-13)
