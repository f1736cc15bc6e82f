"""`check_kernel`: what passes, and that each way to be wrong turns the right check red."""

import dataclasses
import pickle
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx
from kernax.checks import CHECKS
from kernax.checks._shapes import check_shapes
from kernax.checks._subject import Subject
from kernax.kernels._catalogue import CATALOGUE
from tests.table import CASES, FAMILIES, OTHERS, Cosine


class Exponential(kx.AbstractKernel):
    """A user's kernel, that knows its kink."""

    rate: Array = kx.positive(1.0)
    differentiability: ClassVar[float] = 0

    def pairwise(self, x, y):
        return jnp.exp(-self.rate * jnp.sum(jnp.abs(x - y)))


CAUCHY = kx.kernel(
    lambda x, y, *, scale: 1.0 / (1.0 + jnp.sum(jnp.square((x - y) / scale))),
    scale=kx.positive(2.0),
)
BATCH = kx.BatchKernel(2.0 * kx.SEKernel(0.6) + kx.WhiteNoiseKernel(0.1), 3, 0)
SPREAD = BATCH.replace(length_scale=[0.2, 1.0, 5.0])

# Some of the table overflow far from 0 as their formulas do: these have values there too.
CHECKED = {name: CASES[name].kernel for name in FAMILIES + OTHERS} | {
    "gibbs per dimension": kx.GibbsKernel(kx.transforms.LogLinear()),
    "change point with noise": kx.ChangePointKernel(
        kx.SEKernel(0.6), kx.Matern32Kernel(0.8) + kx.WhiteNoiseKernel(0.1), 0.3, 2.0
    ),
}

# --- what passes --------------------------------------------------------------------------------


def test_all_of_it_on_one_kernel():
    before = dict(jax.config.values)
    report = kx.check_kernel(kx.SEKernel(0.6))
    assert dict(jax.config.values) == before
    assert report.passed == tuple(CHECKS)
    assert report.dims == (1, 2, 5)
    assert report.dtypes == ("float64", "float32")
    assert [name for name, _ in report.left_out] == ["wrong inputs"]
    lines = str(report).splitlines()
    assert lines[0] == "SE(length_scale=0.6): dimensions 1, 2, 5; float64 and float32"
    assert [line.split("  ")[1] for line in lines if line.endswith("passed")] == list(CHECKS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.passed = ()


def classes(kernel):
    """The classes of a kernel and of those inside it."""
    inside = jax.tree.leaves(
        kernel, is_leaf=lambda node: isinstance(node, kx.AbstractKernel) and node is not kernel
    )
    parts = [classes(node) for node in inside if isinstance(node, kx.AbstractKernel)]
    return {type(kernel)}.union(*parts)


def test_the_whole_catalogue_is_checked():
    checked = [*CHECKED.values(), kx.SigmoidKernel()]
    missing = {*CATALOGUE, kx.GibbsKernel, kx.WarpedKernel}.difference(*map(classes, checked))
    assert not missing


@pytest.mark.parametrize("name", CHECKED)
def test_the_catalogue_passes(name):
    report = kx.check_kernel(CHECKED[name], dims=2)
    assert set(report.passed) == set(CHECKS)


@pytest.mark.parametrize(
    ("kernel", "left_out"),
    [
        (Exponential(0.8), {"derivatives": "`differentiability` is 0"}),
        (Cosine(0.6), {}),
        (CAUCHY, {"persistence": "pickle: Function is not a name"}),
        (SPREAD, {}),
        (kx.BatchKernel(kx.SEKernel(0.6), 2, 0, False), {}),
        (kx.BatchKernel(kx.SEKernel(0.6), 0), {"symmetry": "all: the batch is empty"}),
        (3.0 - kx.ConstantKernel(1.0), {"definiteness": "all: sign()"}),
        (kx.SigmoidKernel(), {"definiteness": "all: sign()"}),
    ],
    ids=[
        "class",
        "two classes",
        "function",
        "batch",
        "shared inputs",
        "empty batch",
        "difference",
        "sigmoid",
    ],
)
def test_other_forms_pass_too(kernel, left_out):
    report = kx.check_kernel(kernel, dims=1)
    reasons = dict(report.left_out)
    for name, text in left_out.items():
        assert text in reasons[name]
    wholly = {name for name, reason in report.left_out if reason.startswith("all")}
    assert set(report.passed) == set(CHECKS) - wholly


def test_dimensions_that_the_kernel_refuses_are_left_out():
    first = Subject(kx.ActiveDimsKernel(kx.ConstantKernel(1.0), [1]), None)
    (reason,) = check_shapes(first)
    assert first.dims == (2, 5)
    assert reason.startswith("dimension 1, which the kernel refuses: `active_dims` names")
    ard = kx.ARDKernel(kx.SEKernel(), [1.0, 2.0, 3.0])
    second = Subject(ard, None)
    assert len(check_shapes(second)) == 3
    assert second.dims == (3,)
    with pytest.raises(kx.KernelCheckError, match="'shapes' at d = 2: got the error: `length_scal"):
        kx.check_kernel(ard, dims=(3, 2))


def test_32_bits(x64_off):
    report = kx.check_kernel(kx.Matern32Kernel(0.6), dims=1)
    assert report.passed == tuple(CHECKS)
    assert report.dtypes == ("float32",)
    assert ("precision", "the comparison with float64, not enabled here") in report.left_out


def test_a_class_is_not_a_kernel():
    with pytest.raises(kx.ParameterError, match=r"expected a kernel. Fix: pass an instance"):
        kx.check_kernel(kx.SEKernel)


# --- what is wrong ------------------------------------------------------------------------------


class Wrong(kx.AbstractKernel):
    """The squared exponential, until something is overridden."""

    scale: Array = kx.positive(1.0)

    def pairwise(self, x, y):
        return jnp.exp(-0.5 * jnp.sum(jnp.square((x - y) / self.scale)))


class Vector(Wrong):
    def pairwise(self, x, y):
        return jnp.exp(-jnp.square(jnp.squeeze(x - y) / self.scale))


class Double(Wrong):
    def pairwise(self, x, y):
        return jnp.asarray(2.0, jnp.float64) * super().pairwise(x, y)


class Crowded(Wrong):
    """A matrix of shifted points, which needs a least one."""

    def matrix(self, X, Y):
        low = jnp.min(X, axis=0, keepdims=True)
        return super().matrix(X - low, Y - low)


class Lopsided(Wrong):
    def pairwise(self, x, y):
        return super().pairwise(x, y) * (1.0 + 0.1 * jnp.tanh(x[0] - y[0]))


class Twice(Wrong):
    def matrix(self, X, Y):
        return 2.0 * super().matrix(X, Y)


class Unsquared(Wrong):
    def diagonal(self, X):
        return super().diagonal(X) + 0.5


class Moving(Wrong):
    """Not stationary, whatever it says."""

    stationary: ClassVar[bool] = True

    def pairwise(self, x, y):
        return super().pairwise(x, y) + jnp.tanh(x[0]) * jnp.tanh(y[0])


class Waves(Wrong):
    """A sine of the Euclidean distance: definite on a line, not in a plane."""

    def pairwise(self, x, y):
        r = jnp.linalg.norm(x - y) / self.scale
        return jnp.exp(-2.0 * jnp.square(jnp.sin(r)))


class Norm(Wrong):
    differentiability: ClassVar[float] = 0

    def pairwise(self, x, y):
        return jnp.exp(-jnp.linalg.norm(x - y) / self.scale)


class Flat(Wrong):
    """Matern 3/2 with a safe square root: its second derivative at 0 is not 0."""

    def pairwise(self, x, y):
        s = 3.0 * jnp.sum(jnp.square((x - y) / self.scale))
        r = jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0.0)
        return (1.0 + r) * jnp.exp(-r)


class Kinked(Wrong):
    def pairwise(self, x, y):
        return jnp.exp(-jnp.sum(jnp.abs(x - y)) / self.scale)


class Overflowing(Wrong):
    """1 / (1 + s), as infinity over infinity where s overflows."""

    def pairwise(self, x, y):
        s = jnp.sum(jnp.square((x - y) / self.scale))
        return 1.0 - s / (1.0 + s)


class Filled(Wrong):
    def gram(self, X, X2=None, *, mask=None, mask2=None):
        return super().gram(jnp.nan_to_num(jnp.asarray(X)), X2, mask=mask, mask2=mask2)


class Branching(Wrong):
    def pairwise(self, x, y):
        return super().pairwise(x, y) if x[0] < 100.0 else jnp.zeros(())


class OnTheHost(Wrong):
    def pairwise(self, x, y):
        return jnp.sum(x * y) * np.exp(self.scale)


class Forgetful(Wrong):
    def replace(self, **hyperparameters):
        super().replace(**hyperparameters)


class Lenient(Wrong):
    def replace(self, **hyperparameters):
        known = {name: v for name, v in hyperparameters.items() if name == "scale"}
        return super().replace(**known)


class Lost(Wrong):
    def __reduce__(self):
        return type(self), ()


class Writing(Wrong):
    def gram(self, X, X2=None, *, mask=None, mask2=None):
        K = super().gram(X, X2, mask=mask, mask2=mask2)
        if isinstance(X, np.ndarray) and X.flags.writeable:
            X += 1.0
        return K


class RealParts(Wrong):
    def gram(self, X, X2=None, *, mask=None, mask2=None):
        return super().gram(np.real(X), X2, mask=mask, mask2=mask2)


WRONG = {
    "one value per dimension": (Vector, 2, "shapes", r"at n = 1, d = 2.*shape \(2,\)"),
    "no points": (Crowded, 1, "shapes", "at n = 0, d = 1.*zero-size"),
    "asymmetric": (Lopsided, 1, "symmetry", r"x = \[0.0\], y = \[1.0\].*stays the same when its"),
    "another matrix": (Twice, 1, "symmetry", r"x = \[0.0\], y = \[0.0\].*got 2.0 from matrix"),
    "another diagonal": (Unsquared, 1, "symmetry", "got 1.0 on the diagonal.*and 1.5 from d"),
    "not stationary": (Moving, 1, "symmetry", "with 4 added to both points.*`stationary = True`"),
    "indefinite in the plane": (Waves, 2, "definiteness", "n = [3-9], d = 2, X = .*eigenvalue -"),
    "on a line": (Waves, 1, "derivatives", "dk/dx = nan"),
    "a norm": (Norm, 2, "derivatives", r"x = \[0.0, 0.0\], y = \[0.0, 0.0\].*dk/dx = nan, expect"),
    "a safe root": (Flat, 1, "derivatives", r"d2k/dxdy = -?0, expected 1\d"),
    "a kink": (Kinked, 1, "derivatives", "grow without bound.*declare `differentiability"),
    "overflow": (Overflowing, 1, "precision", r"y = \[1e\+25\], dtype = float32: got k.* = nan"),
    "NaN filled in": (Filled, 1, "padding", "expected nan"),
    "a branch": (Branching, 1, "transformations", "Tracer.*jnp.where in place of `if`"),
    "NumPy": (OnTheHost, 1, "transformations", "TracerArrayConversionError"),
    "no kernel": (Forgetful, 1, "transformations", "NoneType"),
    "any name": (Lenient, 1, "hyperparameters", "no error, and Lenient.*expected ParameterError"),
    "lost in a pickle": (Lost, 1, "persistence", "an equal kernel"),
    "writes to X": (Writing, 1, "persistence", "another X after the call"),
    "complex numbers": (RealParts, 1, "wrong inputs", "of complex numbers: got no error"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name, x64_off):
    cls, dims, check, text = WRONG[name]
    with pytest.raises(kx.KernelCheckError, match=text) as caught:
        kx.check_kernel(cls(0.5), dims=dims)
    error = caught.value
    assert error.check == check
    assert isinstance(error, AssertionError)
    assert f"{cls.__name__} fails the check '{check}'" in str(error)
    assert "Fix: " in str(error)


def test_the_smallest_case_comes_along():
    with pytest.raises(kx.KernelCheckError) as caught:
        kx.check_kernel(Waves(0.5))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.check, error.case["d"]) == ("definiteness", 2)
    X = error.case["X"]
    assert X.shape == (error.case["n"], 2)
    K = np.asarray(Waves(0.5).gram(X))
    assert np.linalg.eigvalsh(K)[0] < -1e-9
    for row in range(len(X)):
        assert np.linalg.eigvalsh(np.delete(np.delete(K, row, 0), row, 1))[0] > -1e-9


def test_constants_of_64_bits_are_named():
    with pytest.raises(
        kx.KernelCheckError, match=r"'shapes' at n = 3, d = 1, dtype = float32.*Type"
    ):
        kx.check_kernel(Double(0.5), dims=1)
    expected = r"dtype float64, expected float32.*without a dtype"
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(kx.KernelCheckError, match=expected),
    ):
        kx.check_kernel(Double(0.5), dims=1)
