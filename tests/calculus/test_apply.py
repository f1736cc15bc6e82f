"""Operators on kernels: the faster ways against the definition, laws, and what is refused."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from sklearn.gaussian_process.kernels import RBF

import kernax as kx
from kernax._module import prepared
from kernax.calculus._evaluate import _by_definition
from kernax.calculus._partials import Pairs

D, ID, G, LAP, J = kx.Derivative, kx.Identity, kx.Gradient, kx.Laplacian, kx.Integral

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))
Y[0] = X[1]


def grams(kernel, *calls):
    """`gram` of each (left, right, X) or (left, right, X, Y): in one program."""
    each = lambda k: [kx.apply(k, left, right).gram(*points) for left, right, *points in calls]
    return [np.asarray(K) for K in jax.jit(each)(kernel)]


def by_definition(kernel, left, right, X, Y):
    X, Y = jnp.asarray(X), jnp.asarray(Y)
    kernel, left, right = (prepared(part, X.dtype) for part in (kernel, left, right))
    # Pair by pair, with what an operator has for its row: of one axis less than all with all.
    i, j = np.divmod(np.arange(len(X) * len(Y)), len(Y))
    at = lambda operator, rows: jax.tree.map(lambda v: v[rows] if v.ndim else v, operator)
    entries = _by_definition(kernel, at(left, i), at(right, j), Pairs(X[i], Y[j], False))
    K = jnp.stack([jnp.stack(row, axis=-1) for row in entries], axis=1)
    p, q = K.shape[1:]
    K = K.reshape(len(X), len(Y), p, q).transpose(0, 2, 1, 3)
    return K.reshape(len(X) * p, len(Y) * q)


def both_ways(kernel, *calls):
    """Of each (left, right, X, Y) what `gram` gives and what the definition gives."""
    want = jax.jit(lambda k: [by_definition(k, *call) for call in calls])(kernel)
    return zip(grams(kernel, *calls), map(np.asarray, want), strict=True)


KERNELS = {
    "se": kx.SEKernel([0.7, 1.3]),
    "matern": kx.MaternKernel(nu=4.5, length_scale=0.7),
    "rational quadratic": kx.RationalQuadraticKernel(0.6, 1.7),
    "periodic": kx.PeriodicKernel([1.3, 0.8], [0.9, 0.7]),
    "cosine": kx.CosineKernel(1.3),
    "composite": 2.0 * kx.SEKernel(0.6) * (kx.RationalQuadraticKernel(0.7) + kx.LinearKernel()),
    "power": (kx.SEKernel(0.6) + 0.5) ** 3,
    "dims": kx.ActiveDimsKernel(kx.SEKernel(0.6), [1]) * kx.SEKernel() - 0.5,
    "ard": kx.ARDKernel(kx.SEKernel(2.0) + kx.LinearKernel(1.4, 0.3), [0.7, 1.9]),
    "warped": kx.WarpedKernel(kx.SEKernel(), jnp.tanh) + kx.SEKernel(),
}
STRETCH = (lambda x: jnp.sin(x[0])) * D(0) + ID()


@pytest.mark.parametrize("name", KERNELS)
def test_symbols_give_what_the_definition_gives(name):
    gradient, dependent = (G(), 2.0 * D(0) - 0.3 * LAP(), X, Y), (D(0) @ D(1), STRETCH, X, Y)
    for K, want in both_ways(KERNELS[name], gradient, dependent):
        np.testing.assert_allclose(K, want, atol=1e-11 * np.abs(want).max())


def test_leibniz_rule_for_a_factor_that_is_differentiated():
    inner = (lambda x: x[0] ** 2 * x[1]) * D(1)
    operators = (D(0) @ inner, D(1), D(0) @ D(1))
    K, first, second = grams(KERNELS["se"], *((left, ID(), X, Y) for left in operators))
    want = (2 * X[:, 0] * X[:, 1])[:, None] * first + (X[:, 0] ** 2 * X[:, 1])[:, None] * second
    np.testing.assert_allclose(K, want, atol=1e-13)


def test_rows_are_point_by_point():
    k = kx.SEKernel([0.7, 1.3])
    K = kx.apply(k, G(), G()).gram(X, Y)
    np.testing.assert_allclose(
        np.asarray(K).reshape(4, 2, 3, 2).transpose(0, 2, 1, 3), k.mixed_hessian(X, Y), atol=1e-14
    )
    both = kx.apply(k, G() @ G()).gram(X, Y)  # the gradient of the gradient: a hessian
    np.testing.assert_allclose(
        np.asarray(both).reshape(4, 2, 2, 3).transpose(0, 3, 1, 2), k.hessian(X, Y, 0), atol=1e-14
    )


def test_covariance_of_gradients_is_that_of_differences_of_scikit_learn():
    """The delta and the sign of K_gg: 2 g (delta - 2 g (x_j - y_j) (x_l - y_l)) k."""
    g, h = 0.8, 1e-4
    rbf = RBF(length_scale=(2 * g) ** -0.5)
    K = np.asarray(kx.apply(kx.SEKernel((2 * g) ** -0.5), G(), G()).gram(X, Y))
    steps = h * np.eye(2)
    for j in range(2):
        for m in range(2):
            quotient = sum(
                a * b * rbf(X + a * steps[j], Y + b * steps[m]) for a in (1, -1) for b in (1, -1)
            ) / (4 * h**2)
            np.testing.assert_allclose(K[j::2, m::2], quotient, atol=2e-7)
    k, z = rbf(X, Y), X[:, None, :] - Y[None, :, :]
    delta = np.eye(2)[None, None]
    closed = 2 * g * (delta - 2 * g * z[..., :, None] * z[..., None, :]) * k[..., None, None]
    np.testing.assert_allclose(K.reshape(4, 2, 3, 2).transpose(0, 2, 1, 3), closed, atol=1e-14)


PROFILES = {
    "se": (kx.SEKernel(0.7), lambda t: mpmath.exp(-(t**2) / 2), 2),
    "matern32": (
        kx.Matern32Kernel(0.7),
        lambda t: (1 + mpmath.sqrt(3) * abs(t)) * mpmath.exp(-mpmath.sqrt(3) * abs(t)),
        1,
    ),
    "matern52": (
        kx.Matern52Kernel(0.7),
        lambda t: (
            (1 + mpmath.sqrt(5) * abs(t) + 5 * t**2 / 3) * mpmath.exp(-mpmath.sqrt(5) * abs(t))
        ),
        2,
    ),
    "rational quadratic": (
        kx.RationalQuadraticKernel(0.7, 1.7),
        lambda t: (1 + t**2 / mpmath.mpf(3.4)) ** -mpmath.mpf(1.7),
        2,
    ),
    "wendland": (
        kx.WendlandKernel(2, 0.7),
        lambda t: (1 - abs(t)) ** 6 * (35 * t**2 + 18 * abs(t) + 3) / 3 if abs(t) < 1 else 0,
        2,
    ),
    "periodic": (
        kx.PeriodicKernel(0.7, 0.9 * 0.7),
        lambda t: mpmath.exp(-2 * mpmath.sin(mpmath.pi * t / mpmath.mpf(0.9)) ** 2 / 0.49),
        2,
    ),
}


@pytest.mark.parametrize("name", PROFILES)
def test_derivatives_up_to_fourth_order_against_mpmath(name):
    kernel, profile, p = PROFILES[name]
    apart = np.array([0.0, 0.05, 0.31, 0.62])
    orders = range(1, p + 1)
    found = grams(kernel, *((D(0, n), D(0, n), apart, np.zeros(1)) for n in orders))
    for order, K in zip(orders, found, strict=True):
        with mpmath.workdps(40):
            want = []
            for t in apart / 0.7:
                # A one-sided stencil: at 0 the even function has this derivative too.
                value = mpmath.diff(profile, mpmath.mpf(float(t)), 2 * order, direction=1)
                want.append(float((-1) ** order * value / mpmath.mpf(0.7) ** (2 * order)))
        atol = 1e-7 * abs(want[0])
        np.testing.assert_allclose(K[:, 0], want, rtol=1e-7, atol=atol, err_msg=order)


@pytest.mark.parametrize(
    ("kernel", "left", "right", "part"),
    [
        (kx.Matern12Kernel(), D(0), D(0), "Matern12Kernel is not mean-square differentiable"),
        (kx.Matern12Kernel(), D(0), None, "Matern12Kernel is not mean-square differentiable"),
        (kx.Matern32Kernel(), D(0, 2), D(0), "Matern32Kernel is once mean-square"),
        (kx.SEKernel() + kx.Matern52Kernel(), D(0, 3), D(1, 2), "Matern52Kernel is 2 times"),
        (kx.WendlandKernel(0), G(), G(), "WendlandKernel is not mean-square differentiable"),
        (kx.TanimotoKernel(), G(), None, "TanimotoKernel is not"),
        (kx.HammingKernel(), J(0.0, 1.0), None, "HammingKernel jumps"),
    ],
)
def test_derivatives_that_do_not_exist_are_refused_by_name(kernel, left, right, part):
    with pytest.raises(kx.ParameterError, match=part):
        kx.apply(kernel, left, right).gram(X)


def test_only_the_parts_that_read_a_dimension_count():
    rough = kx.ActiveDimsKernel(kx.Matern12Kernel(), [0]) * kx.ActiveDimsKernel(kx.SEKernel(), [1])
    assert np.isfinite(kx.apply(rough, D(1), D(1)).gram(X)).all()
    with pytest.raises(kx.ParameterError, match="Matern12Kernel"):
        kx.apply(rough, D(0)).gram(X)


def test_parts_inside_a_formula_of_which_nothing_is_known():
    """They may see any dimension, and may read dimensions that the points do not have."""
    warped = lambda inner: kx.WarpedKernel(inner, lambda x: jnp.stack([x[0], x[1], x[0] * x[1]]))
    assert np.isfinite(kx.apply(warped(kx.ActiveDimsKernel(kx.SEKernel(), [2])), G()).gram(X)).all()
    with pytest.raises(kx.ParameterError, match="Matern12Kernel"):
        kx.apply(warped(kx.ActiveDimsKernel(kx.Matern12Kernel(), [2])), D(0)).gram(X)


@pytest.mark.parametrize("call", ["pairwise", "matrix", "diagonal"])
def test_every_way_to_a_value_refuses(call):
    applied = kx.apply(kx.Matern12Kernel(), D(0), D(0))
    points = jnp.asarray(X)
    arguments = {"pairwise": (points[0], points[0]), "matrix": (points, points)}
    with pytest.raises(kx.ParameterError, match="Matern12Kernel"):
        getattr(applied, call)(*arguments.get(call, (points,)))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: D(0, 0), kx.ParameterError, "`order` is 0"),
        (lambda: D(0, -1), kx.ParameterError, "`order` is -1"),
        (lambda: D(0.5), kx.ParameterError, "`dim` got 0.5"),
        (lambda: kx.apply(kx.SEKernel(), D(2)).gram(X), kx.ShapeError, "dimension 2"),
        (lambda: J(1.0, 0.0, 0), kx.ParameterError, "from 1 to 0"),
        (lambda: J([0.0, 2.0], [1.0, 1.0]), kx.ParameterError, "from 2 to 1"),
        (lambda: J(0.0, np.inf), kx.ParameterError, "not all finite"),
        (lambda: kx.Average(1.0, 1.0), kx.ParameterError, "no length"),
        (lambda: kx.apply(kx.SEKernel(), G() + D(0)).gram(X), kx.ShapeError, "2 components"),
        (lambda: kx.apply(kx.SEKernel(), [1.0, 2.0] * D(0)).gram(X), kx.ShapeError, "2 rows"),
        (lambda: kx.apply(kx.SEKernel(), G).gram(X), kx.ParameterError, "the class Gradient"),
        (lambda: kx.apply(1.0, G()), kx.ParameterError, "`kernel` is 1.0"),
    ],
)
def test_wrong_operators_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


LONG = J([-1.0, 0.0, 0.2, 0.3], [-0.5, 1.0, 0.2001, 2.0])
LINE, OTHER = X[:, :1], np.concatenate([X[1:2, :1], Y[1:, :1]])


@pytest.mark.parametrize(
    "kernel",
    [
        kx.SEKernel(0.7),
        kx.Matern12Kernel(0.7),
        kx.Matern52Kernel(0.7),
        2.0 * kx.CosineKernel(1.3) + kx.MaternKernel(nu=3.5),
    ],
    ids=lambda kernel: f"{kernel:.2g}",
)
def test_integrals_in_closed_form_give_what_quadrature_gives(kernel):
    rights = ID(), J(-0.3, 0.8), J([-1.0, 0.1, 0.2], [-0.5, 1.3, 0.20001])
    for K, want in both_ways(kernel, *((LONG, right, LINE, OTHER) for right in rights)):
        np.testing.assert_allclose(K, want, rtol=1e-9)


def test_integrals_against_scipy():
    k = kx.Matern32Kernel(0.7)
    f = lambda s, t: float(
        (1 + np.sqrt(3) * abs(s - t) / 0.7) * np.exp(-np.sqrt(3) * abs(s - t) / 0.7)
    )
    origin = np.zeros(1)
    one, both, mean = grams(
        k,
        (ID(), J(-0.4, 1.1), np.array([0.3]), origin),
        (J(-0.4, 1.1), J(0.2, 0.9), origin, origin),
        (kx.Average(-0.4, 1.1), J(0.2, 0.9), origin, origin),
    )
    np.testing.assert_allclose(
        one[0, 0], quad(lambda t: f(0.3, t), -0.4, 1.1, points=[0.3])[0], rtol=1e-12
    )
    np.testing.assert_allclose(both[0, 0], dblquad(f, -0.4, 1.1, 0.2, 0.9)[0], rtol=1e-7)
    np.testing.assert_allclose(1.5 * mean, both, rtol=1e-14)


def test_a_joint_matrix_of_values_slopes_and_integrals_is_positive_definite():
    k = kx.SEKernel(0.7)
    operators = [ID(), D(0), J(-0.4, 1.1), LAP()]
    points = np.linspace(-1, 1, 3)
    entries = iter(grams(k, *((a, b, points) for a in operators for b in operators)))
    blocks = [[next(entries) for _ in operators] for _ in operators]
    blocks[2] = [row[:1] for row in blocks[2]]  # one integral, not three times the same
    blocks = [[*row[:2], row[2][:, :1], row[3]] for row in blocks]
    K = np.block(blocks)
    np.testing.assert_allclose(K, K.T, atol=1e-13 * np.abs(K).max())
    assert np.linalg.eigvalsh(K).min() > 0


def test_padding_masks_batches_and_transformations():
    k = kx.SEKernel([0.7, 1.3])
    full = np.asarray(kx.apply(k, G(), G()).gram(X))
    padded = np.concatenate([X, [[np.nan, 0.0]]])
    K = kx.apply(k, G(), G()).gram(padded)
    np.testing.assert_array_equal(np.isnan(K[-2:]), True)
    np.testing.assert_allclose(K[:8, :8], full, atol=1e-15)
    mask = np.arange(5) < 4
    masked = kx.apply(k, G(), G()).gram(padded, mask=mask)
    np.testing.assert_allclose(masked[8:, 8:], np.eye(2))
    np.testing.assert_allclose(masked[:8, :8], full, atol=1e-15)
    batch = kx.BatchKernel(kx.SEKernel(), 2, batch_in_axes=0, batch_over_inputs=False)
    batch = batch.replace(length_scale=[0.7, 1.9])
    K = kx.apply(batch, G(), LAP()).gram(X, Y)
    for i, scale in enumerate((0.7, 1.9)):
        one = kx.apply(kx.SEKernel(scale), G(), LAP()).gram(X, Y)
        np.testing.assert_allclose(K[i], one, atol=1e-13)
    total = lambda s: kx.apply(kx.SEKernel(s), G(), G()).gram(X).sum()
    total = jax.jit(jax.value_and_grad(total))
    difference = total(0.7 + 1e-6)[0] - total(0.7 - 1e-6)[0]
    np.testing.assert_allclose(total(0.7)[1], difference / 2e-6, rtol=1e-7)


def test_diagonals_are_those_of_the_matrix():
    for kernel, operator in ((KERNELS["se"], G()), (KERNELS["composite"], D(1) + 0.3 * LAP())):
        applied = lambda k, operator=operator: kx.apply(k, operator, operator)
        both = jax.jit(lambda k, of=applied: (of(k).diagonal(X), of(k).gram(X)))
        diagonal, K = both(kernel)
        np.testing.assert_allclose(diagonal, np.diag(K), rtol=1e-12)
    with pytest.raises(kx.ParameterError, match="one operator on both sides"):
        kx.apply(KERNELS["se"], G(), LAP()).diagonal(X)


def test_float32_agrees_with_float64():
    with jax.enable_x64(False):
        single = kx.apply(kx.Matern52Kernel(0.7), G(), LAP()).gram(X.astype(np.float32))
    double = kx.apply(kx.Matern52Kernel(0.7), G(), LAP()).gram(X)
    np.testing.assert_allclose(single, double, atol=2e-3 * np.abs(double).max())
