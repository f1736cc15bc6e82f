"""Laws of operators on kernels: linearity, composition, symmetry, joint covariances, draws."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from sklearn.gaussian_process import kernels as sk

import kernax as kx
from tests.strategies import PROFILE, lengths, reals, values_of

# Kernels are built while drawing, where the checks of types pick at random what they look at.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

ID, D, G, LAP = kx.Identity(), kx.Derivative, kx.Gradient(), kx.Laplacian()
J, A, ALONG = kx.Integral, kx.Average, kx.DirectionalDerivative

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))
Y[0], X[3] = X[1], X[2]

SE, M52, RQ = kx.SEKernel([0.7, 1.3]), kx.Matern52Kernel(0.7), kx.RationalQuadraticKernel(0.6, 1.7)
KERNELS = {
    "se": SE,
    "matern52": M52,
    "rational quadratic": RQ,
    "product": M52 * RQ,
    "sum": 1.5 * SE * RQ + M52,
    "ard": kx.ARDKernel(kx.RationalQuadraticKernel(2.0) * kx.SEKernel(), [0.7, 1.9]),
}


def over(*names):
    return pytest.mark.parametrize("k", [KERNELS[name] for name in names], ids=names)


def gram(k, left, right, X=X, Y=Y):
    return np.asarray(kx.apply(k, left, right).gram(X, Y))


def grams(k, *calls):
    """`gram` of each (left, right, X, Y): in one program."""
    each = lambda k: [kx.apply(k, left, right).gram(*points) for left, right, *points in calls]
    return [np.asarray(K) for K in jax.jit(each)(k)]


def uncompiled(k, left, right):
    """`gram`, for operators of many structures, each of which takes long to compile."""
    with jax.disable_jit():
        return gram(k, left, right)


def agree(found, want, *, of=(), rtol=1e-10):
    """Equal in units of the largest entry, also of the terms ``of`` which both are made."""
    scale = max(np.abs(K).max() for K in (want, *of))
    np.testing.assert_allclose(found, want, rtol=0, atol=rtol * max(scale, 1.0))


PLAIN = [(ID,), (D(0), D(1), ALONG([1.0, 1.0])), (D(0, 2), D(1, 2), LAP)]  # by their order
SPANS = (J(0.0, 1.0), J(0.0, 1.0, 1), A(0.0, 1.0))


@st.composite
def leaves(draw, order, integrals=True):
    """An operator that is made of no others, of at most that order, with drawn values."""
    leaf = draw(st.sampled_from(sum(PLAIN[: order + 1], SPANS if integrals else ())))
    if isinstance(leaf, J):
        lower = draw(reals)
        return type(leaf)(lower, lower + draw(lengths) / 8, leaf.dim)
    return ALONG([draw(reals), draw(reals)]) if isinstance(leaf, ALONG) else leaf


@st.composite
def operators(draw, order, integrals=True):
    """A leaf, scaled or not, or a sum or a composition of two, of at most that order."""
    leaf = leaves(order, integrals)
    match draw(st.sampled_from(["leaf", "*", "+", "@"])):
        case "*":
            return draw(reals) * draw(leaf)
        case "+":
            return draw(leaf) + draw(reals) * draw(leaf)
        case "@":
            inner = draw(st.integers(0, order))
            return draw(leaves(order - inner, False)) @ draw(leaves(inner, integrals))
    return draw(leaf)


drawn_kernels = st.sampled_from(list(KERNELS)).flatmap(lambda name: values_of(KERNELS[name]))
few = settings(max_examples=6 if PROFILE == "ci" else 200)


@few
@given(drawn_kernels, operators(2), operators(2, False), operators(1, False), reals, st.booleans())
def test_apply_is_linear_on_both_sides(k, a, b, other, c, right):
    of = lambda operator: uncompiled(k, *((other, operator) if right else (operator, other)))
    parts = [of(a), c * of(b)]
    agree(of(a + b * c), parts[0] + parts[1], of=parts)


@few
@given(drawn_kernels, leaves(1), operators(1, False), leaves(1), leaves(1, False))
def test_compositions_associate_and_distribute(k, a, b, c, other):
    of = lambda operator: uncompiled(k, operator, other)
    agree(of((a @ b) @ c), of(a @ (b @ c)))
    parts = [of(a @ b), of(a @ c)]
    agree(of(a @ (b + c)), parts[0] + parts[1], of=parts)


FIRST = lambda x: x[0]
IDENTITIES = {
    "derivatives commute": (D(0) @ D(1), D(1) @ D(0)),
    "twice the first is the second": (D(0) @ D(0), D(0, 2)),
    "laplacian": (LAP, D(0, 2) + D(-1, 2)),
    "direction": (ALONG([0.3, -0.7]), 0.3 * D(0) - 0.7 * D(1)),
    "leibniz": (D(0, 2) @ (FIRST * ID), FIRST * D(0, 2) + 2.0 * D(0)),
    "adjacent stretches": (J(-0.4, 0.2) + J(0.2, 1.1), J(-0.4, 1.1)),
    "rows": (
        np.array([1, 1, 0, 0]) * J(-0.4, 1.1) + np.array([0, 0, 1, 1]) * J(0.3, 0.9),
        J([-0.4, -0.4, 0.3, 0.3], [1.1, 1.1, 0.9, 0.9]),
    ),
    "average": (1.5 * A(-0.4, 1.1, 1), J(-0.4, 1.1, 1)),
    "integrals commute": (J(-0.4, 1.1) @ J(0.1, 0.7, 1), J(0.1, 0.7, 1) @ J(-0.4, 1.1)),
    "integral of a constant": (J(-0.4, 1.1) @ J(0.1, 0.7), 1.5 * J(0.1, 0.7)),
    "of different dimensions": (J(-0.4, 1.1) @ D(1), D(1) @ J(-0.4, 1.1)),
    "derivative of a constant": (D(0) @ J(-0.4, 1.1), 0.0 * ID),
}


@pytest.mark.parametrize("name", IDENTITIES)
@over("se", "matern52")
def test_identities(k, name):
    one, other = IDENTITIES[name]
    agree(uncompiled(k, one, D(1)), uncompiled(k, other, D(1)))


@over("se", "ard")
def test_the_integral_of_a_slope_is_a_difference(k):
    ends = [np.stack([np.full(4, end), X[:, 1]], axis=1) for end in (1.1, -0.4)]
    calls = [(ID, D(1), end, Y) for end in ends]
    found, *K = grams(k, (J(-0.4, 1.1) @ D(0), D(1), X, Y), *calls)
    agree(found, K[0] - K[1], of=K)


@over("matern52", "sum")
def test_components_of_gradients(k):
    """Of an inner operator they are slow: d_a (x_0 d_b f) is component 2 b + a."""
    first, second = uncompiled(k, G, D(1)), uncompiled(k, G @ G, D(1))
    factor = uncompiled(k, G @ (FIRST * G), D(1))
    for a in range(2):
        agree(first[a::2], uncompiled(k, D(a), D(1)))
        for b in range(2):
            want = X[:, :1] * second[2 * b + a :: 4] + (a == 0) * first[b::2]
            agree(factor[2 * b + a :: 4], want)
    agree(second[::4] + second[3::4], uncompiled(k, LAP, D(1)), of=[second])


@pytest.mark.parametrize("part", [kx.SEKernel(), kx.PeriodicKernel()], ids=["se", "periodic"])
def test_a_part_that_does_not_read_a_dimension_has_no_slope_along_it(part):
    reads = lambda dim: kx.ActiveDimsKernel(part, [dim])
    whole, one = reads(0) + reads(1), reads(0)
    both = jax.jit(lambda *kernels: [kx.apply(k, D(0), ID).gram(X, Y) for k in kernels])
    agree(*map(np.asarray, both(whole, one)))


ROWS = J([-0.4, 0.1, 0.3, 0.3], [1.1, 0.7, 0.9, 0.9], 1)  # a stretch for each row of X, two equal
PAIRS = {
    "values, gradients": (ID, G),
    "gradients, laplacian": (G, LAP),
    "stretches, slopes": (ROWS, D(0) @ D(1)),
    "directions, average": (ALONG(np.cos(np.arange(8.0)).reshape(4, 2)), A(0.1, 0.7)),
    "factor, second": ((lambda x: jnp.sin(x[0]) * x[1]) * D(0) + ID, 0.3 * D(1, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
@over("se", "product")
def test_exchanging_both_sides_transposes(k, name):
    left, right = PAIRS[name]
    K = gram(k, left, right)
    assert np.abs(K).max() > 1e-2
    agree(gram(k, right, left, Y, X).T, K, rtol=1e-13)


@over("se", "matern52", "product")
def test_values_gradients_and_integrals_are_jointly_definite(k):
    """At points, and over stretches, some of which are the same."""
    sites = (ID, G, ROWS)
    upper = [(a, b) for a in range(3) for b in range(a, 3)]

    @jax.jit
    def everything(k):
        entries = [kx.apply(k, sites[a], sites[b]).gram(X, X) for a, b in upper]
        return entries, kx.apply(k, ROWS, ROWS).diagonal(X)

    entries, diagonal = everything(k)
    K = {pair: np.asarray(entry) for pair, entry in zip(upper, entries, strict=True)}
    K = np.block([[K[a, b] if a <= b else K[b, a].T for b in range(3)] for a in range(3)])
    agree(K, K.T, rtol=1e-13)
    values = np.linalg.eigvalsh(K)
    assert values[0] >= -1e-10 * values[-1]
    agree(diagonal, np.diag(K)[-4:], rtol=1e-13)


H = 2.0**-9
STENCILS = {1: np.array([1, -8, 0, 8, -1]) / H, 2: np.array([-1, 16, -30, 16, -1]) / H**2}


def differences(function, X, dim, order):
    """The derivative of ``function(X)``, a row for each point, along a dimension: five points."""
    steps = H * np.arange(-2.0, 3.0)[:, None, None] * np.eye(2)[dim]
    values = np.asarray(function((X + steps).reshape(-1, 2))).reshape(5, len(X), -1)
    return np.tensordot(STENCILS[order] / 12, values, axes=1)


@pytest.mark.parametrize("other", [ID, J(-0.4, 1.1)], ids=["values", "integral"])
@over("se", "matern52")
def test_derivatives_are_those_of_differences(k, other):
    plain = lambda X: gram(k, ID, other, X)
    first, second = ([differences(plain, X, dim, n) for dim in range(2)] for n in (1, 2))
    slopes, slope, bend = grams(k, *((left, other, X, Y) for left in (G, D(1), LAP)))
    agree(slopes, np.stack(first, axis=1).reshape(8, 3), rtol=1e-8)
    agree(slope, first[1], rtol=1e-8)
    agree(bend, second[0] + second[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("k", "oracle"), [(SE, sk.RBF([0.7, 1.3])), (M52, sk.Matern(0.7, nu=2.5))], ids=["se", "matern"]
)
def test_mixed_hessians_are_those_of_differences_of_scikit_learn(k, oracle):
    """The sign of d_x d_y k, and its delta where points coincide."""
    found = np.asarray(k.mixed_hessian(X, Y))
    for a in range(2):
        for b in range(2):
            slope = lambda X, b=b: differences(lambda Y: oracle(Y, X), Y, b, 1).T
            agree(found[:, :, a, b], differences(slope, X, a, 1), rtol=1e-5)
    np.testing.assert_array_equal(found[1, 0] > 0, np.eye(2))


inexact = pytest.mark.xfail(strict=True, reason="rougher than a kink in one point")


@pytest.mark.parametrize(
    ("k", "apart", "places"),
    [
        (SE * RQ, 0.4, []),
        (M52 * kx.Matern12Kernel(), 0.0, [0.3]),
        pytest.param(kx.WendlandKernel(0, 0.7), 0.0, [0.3, 1.0], marks=inexact),
        pytest.param(kx.GammaExponentialKernel(0.7, 0.6), 0.0, [0.3], marks=inexact),
        pytest.param(kx.Matern12Kernel(0.7), 1e-3, [0.299, 0.3, 0.301], marks=inexact),
    ],
    ids=["product", "kink", "support", "cusp", "passing near a kink"],
)
def test_quadrature_against_scipy(k, apart, places):
    x, y = jnp.array([apart, 9.0]), jnp.array([0.0, 0.3])
    f = jax.jit(lambda t: k.pairwise(x.at[1].set(t), y))
    want = quad(lambda t: float(f(t)), -0.4, 1.1, points=places or None, epsabs=1e-13, limit=200)[0]
    found = gram(k, J(-0.4, 1.1, 1), ID, x[None], y[None])
    np.testing.assert_allclose(found[0, 0], want, rtol=1e-10)


FORMULAS = {
    "se": lambda a, b: math.exp(-0.5 * ((a / 0.7) ** 2 + (b / 1.3) ** 2)),
    "rational quadratic": lambda a, b: (1 + (a**2 + b**2) / (2 * 1.7 * 0.6**2)) ** -1.7,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_integrals_over_two_dimensions_against_scipy(name):
    """Of f(s, x_1) over s with those of f(y_0, t) over t."""
    k, x, y = KERNELS[name], jnp.array([9.0, 0.3]), jnp.array([-0.2, 9.0])
    value = lambda t, s: FORMULAS[name](s + 0.2, 0.3 - t)
    want = dblquad(value, -0.4, 1.1, 0.2, 0.9)[0]
    found = gram(k, J(-0.4, 1.1), J(0.2, 0.9, 1), x[None], y[None])
    np.testing.assert_allclose(found[0, 0], want, rtol=1e-11)


AT = np.array([-1.3, 0.2, 1.0, 2.4])


def conditioned(k):
    train = np.linspace(-2.0, 2.0, 7)
    return kx.GaussianProcess(k, 1e-2, mean=lambda X: X[:, 0] ** 2).condition(train, np.sin(train))


def values_and_slopes(values, slopes):
    """The points and the operator of some values and then some slopes, jointly."""
    plain = np.repeat([1.0, 0.0], [len(values), len(slopes)])
    return np.concatenate([values, slopes]), plain * ID + (1.0 - plain) * D(0)


@pytest.mark.parametrize("k", [M52, kx.SEKernel(2.0) * kx.PeriodicKernel(1.3, 2.1)], ids=str)
def test_the_joint_law_of_values_and_slopes_is_that_of_differences(k):
    posterior = conditioned(k)
    points, both = values_and_slopes(AT, AT)
    near = np.concatenate([AT, AT + H, AT - H])
    T = np.kron([[1, 0, 0], [0, 1 / (2 * H), -1 / (2 * H)]], np.eye(4))

    @jax.jit
    def everything(points, near, at):
        joint, plain, slope = (points, both), (near, ID), (at, D(0))
        C = [posterior.covariance(x, operator=of) for x, of in (joint, plain, slope)]
        means = [posterior.mean(x, operator=of) for x, of in (joint, plain)]
        return C, means, posterior.variance(at, operator=D(0))

    (C, values, slopes), means, variance = everything(points, near, AT)
    agree(C, T @ np.asarray(values) @ T.T, rtol=20 * H**2)
    agree(means[0], T @ np.asarray(means[1]), rtol=H**2)
    agree(slopes, C[4:, 4:], rtol=1e-12)
    agree(variance, np.diag(C)[4:], rtol=1e-12)


def test_slopes_in_a_draw_are_those_of_its_values():
    h = 2.0**-6
    points, both = values_and_slopes(np.concatenate([AT + h, AT - h]), AT)
    draws = conditioned(kx.SEKernel(0.9)).sample(jax.random.key(2), points, (50,), operator=both)
    upper, lower, slopes = np.split(np.asarray(draws), 3, axis=-1)
    assert (slopes.std(axis=0) > 0.1).all()
    np.testing.assert_allclose(slopes, (upper - lower) / (2 * h), rtol=0, atol=1e-3)


def test_slopes_of_paths_have_the_law_of_slopes():
    """Their mean for any features, to 5 standard errors; their variance as far as features go."""
    posterior, at = conditioned(kx.SEKernel(0.9)), jnp.asarray(AT)
    paths = posterior.sample_paths(jax.random.key(0), (1000,), features=2000)
    slopes = np.asarray(jax.jvp(paths, (at,), (jnp.ones_like(at),))[1])
    error = slopes.std(axis=0) / np.sqrt(1000)
    assert (np.abs(slopes.mean(axis=0) - posterior.mean(AT, operator=D(0))) < 5 * error).all()
    variance = posterior.variance(AT, operator=D(0))
    np.testing.assert_allclose(slopes.var(axis=0), variance, rtol=0.2)


@pytest.mark.parametrize("name", PAIRS)
@over("se", "product")
def test_32_bits_agree_with_64_or_warn(k, name):
    for far in (0.0, 1e3, 1e5):
        left, right = (operator.moved(jnp.full(2, -far)) for operator in PAIRS[name])
        with jax.enable_x64(False), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            points = [(points + far).astype(np.float32) for points in (X, Y)]
            found = gram(k, left, right, *points)
        assert found.dtype == np.float32
        if far == 1e5:
            assert any(issubclass(w.category, kx.PrecisionWarning) for w in caught)
        else:
            agree(found, gram(k, left, right, X + far, Y + far), rtol=2e-3)


def test_bounds_that_32_bits_cannot_tell_apart(x64_off):
    point = np.zeros(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gram(kx.SEKernel(), J(1e5 + 0.2, 1e5 + 0.21), J(1e5, 1e5 + 1), point, point)
    near = gram(kx.SEKernel(), J(0.2, 0.21), J(0.0, 1.0), point, point)
    warned = any(issubclass(w.category, kx.PrecisionWarning) for w in caught)
    assert warned or np.abs(found - near).max() < 2e-3 * near.max()
