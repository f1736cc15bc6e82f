"""Kernels from functions, and kernel classes as pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, Cosine, Laplacian

X = np.random.default_rng(2).normal(size=(5, 2))
laplace = kx.kernel(
    lambda x, y, *, rate: jnp.exp(-rate * jnp.sum(jnp.abs(x - y))), rate=kx.positive(1.0)
)


def test_a_function_is_a_kernel_like_one_of_a_class():
    assert isinstance(laplace, kx.AbstractKernel)
    wanted = Laplacian(2.0)
    for found in (laplace(rate=2.0), laplace.replace(rate=2.0)):
        np.testing.assert_array_equal(found.gram(X), wanted.gram(X))
        np.testing.assert_array_equal(found(X[0], X[1]), wanted(X[0], X[1]))
    assert laplace.hyperparameters == {"rate": 1.0}
    assert repr(2.0 * laplace) == "2 * Function(rate=1)"
    composite = (laplace + kx.WhiteNoiseKernel(0.1)) ** 2
    np.testing.assert_allclose(np.diag(composite.gram(X)), 1.21, rtol=1e-15)
    ard = kx.ARDKernel(laplace, [0.5, 2.0])
    np.testing.assert_allclose(ard.gram(X), laplace.gram(X / [0.5, 2.0]), rtol=1e-13)
    padded = np.vstack([X, [[np.nan, 0.0]]])
    np.testing.assert_allclose(laplace.gram(padded)[:5, :5], laplace.gram(X), rtol=1e-15)
    gradient = jax.jit(jax.grad(lambda k: k(0.0, 1.0)))(laplace)
    np.testing.assert_allclose(gradient.rate, -np.exp(-1.0), rtol=1e-15)
    posterior = kx.GaussianProcess(laplace, 0.1).condition(X, X[:, 0])
    assert np.isfinite(posterior.mean(X[:2])).all()


def test_a_decorated_function_with_a_whole_number():
    @kx.kernel(rate=kx.positive(1.0), power=kx.positive_integer(2), shift=0.5)
    def cauchy(x, y, *, rate, power, shift):
        """(shift + rate |x - y|^2)^-power"""
        return (shift + rate * jnp.sum((x - y) ** 2)) ** -power

    assert list(cauchy.hyperparameters) == ["rate", "shift"]
    np.testing.assert_allclose(cauchy(0.0, 1.0), 1.5**-2, rtol=1e-15)
    assert repr(cauchy) == "cauchy(rate=1, power=2, shift=0.5)"
    assert type(cauchy).pairwise.__doc__ == "(shift + rate |x - y|^2)^-power"


@pytest.mark.parametrize(
    "cls", [kx.SEKernel, kx.PeriodicKernel, Laplacian, Cosine, kx.RationalQuadraticKernel]
)
def test_a_class_as_a_function_of_its_hyperparameters(cls):
    values = dict.fromkeys(kx.static(cls)._names, 0.7)
    pure, kernel = kx.static(cls), cls(**values)
    np.testing.assert_array_equal(pure(X[0], X[1], **values), kernel(X[0], X[1]))
    np.testing.assert_array_equal(pure(X, X[:2], **values), kernel(X, X[:2]))
    np.testing.assert_array_equal(pure.gram(X, **values), kernel.gram(X))
    np.testing.assert_array_equal(pure.diagonal(X, **values), kernel.diagonal(X))
    mask = np.arange(5) < 4
    np.testing.assert_array_equal(pure.gram(X, mask=mask, **values), kernel.gram(X, mask=mask))


def test_a_function_kernel_is_saved_with_its_name_only(tmp_path):
    kx.save(tmp_path / "k.json", 2.0 * laplace(rate=0.5))
    twin = kx.load(tmp_path / "k.json", classes=(type(laplace),))
    np.testing.assert_array_equal(twin.gram(X), (2.0 * laplace(rate=0.5)).gram(X))
    with pytest.raises(kx.FormatError, match="unknown type 'Function'"):
        kx.load(tmp_path / "k.json")


def test_pure_functions_under_transformations():
    pure = kx.static(laplace)
    rates = jnp.asarray([0.5, 2.0])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(lambda rate: pure(0.0, 1.0, rate=rate)))(rates), np.exp(-rates), rtol=1e-15
    )
    np.testing.assert_allclose(
        jax.grad(lambda rate: pure(0.0, 1.0, rate=rate))(1.0), -np.exp(-1.0), rtol=1e-15
    )
    assert kx.static(kx.SEKernel)(0.0, 1.0) == CASES["se"].kernel.replace(length_scale=1.0)(
        0.0, 1.0
    )


def test_new_values_compile_nothing():
    from kernax.kernels import _gram

    pure = kx.static(kx.SEKernel)
    pure(X[0], X[1], length_scale=1.0)
    before = _gram._call._cache_size()
    for scale in np.linspace(0.5, 2.0, 20):
        pure(X[0], X[1], length_scale=scale)
        laplace(rate=scale)(X[0], X[1])
    assert _gram._call._cache_size() <= before + 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: kx.kernel(lambda x, y: 0.0, rate=1.0),
            "the function has no hyperparameter 'rate'",
        ),
        (lambda: kx.kernel(lambda x, y, *, rate: 0.0), "takes 'rate', which has no parameter"),
        (lambda: kx.kernel(lambda x, y, *, rate: 0.0, rate=kx.positive()), "'rate' .* no default"),
        (lambda: kx.kernel(lambda x, y, *, rate: 0.0, rate=kx.positive(-1.0)), r"is -1\.0"),
        (lambda: kx.static(kx.SEKernel)(0.0, 1.0, lenght_scale=1.0), "did you mean 'length_scale'"),
        (lambda: kx.static(kx.SEKernel)(0.0, 1.0, length_scale=-1.0), r"is -1\.0"),
        (lambda: kx.static(kx.SEKernel()), "`static` got .*, expected a kernel class"),
        (lambda: kx.static(3), "`static` got 3, expected a kernel class"),
        (lambda: laplace(rate=-1.0), r"'rate' is -1\.0"),
        (lambda: laplace(rat=1.0), "no hyperparameter 'rat'; did you mean 'rate'"),
    ],
)
def test_names_and_values_that_mean_nothing(call, text):
    with pytest.raises(kx.ParameterError, match=text):
        call()
