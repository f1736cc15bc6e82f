"""A kernel of one's own, in each of its three forms, takes part in everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx

RNG = np.random.default_rng(11)
X = RNG.normal(size=(6, 2))
NAN_ROW = np.vstack([X, [[np.nan, 0.0]]])


class Laplace(kx.AbstractKernel):
    """k(x, y) = exp(-|x - y|_1 / length_scale)."""

    length_scale: Array = kx.positive(1.0)

    def pairwise(self, x, y):
        return jnp.exp(-jnp.sum(jnp.abs(x - y)) / self.length_scale)


@kx.kernel(length_scale=kx.positive(1.0))
def cauchy(x, y, *, length_scale):
    """1 / (1 + |x - y|^2 / length_scale^2)"""
    return 1.0 / (1.0 + jnp.sum((x - y) ** 2) / length_scale**2)


class StaticCosine(kx.StaticAbstractKernel):
    @classmethod
    def pairwise_cov(cls, kern, x1, x2):
        return jnp.prod(jnp.cos((x1 - x2) / kern.length_scale))


class Cosine(kx.AbstractKernel):
    """k(x, y) = prod_j cos((x_j - y_j) / length_scale)."""

    length_scale: Array = kx.positive(1.0)
    static_class = StaticCosine


# The kernel, and the same of the differences (n, m, d) in NumPy.
FORMS = {
    "class": (Laplace(0.8), lambda D, scale: np.exp(-np.abs(D).sum(axis=-1) / scale)),
    "function": (
        cauchy(length_scale=0.8),
        lambda D, scale: 1 / (1 + (D**2).sum(axis=-1) / scale**2),
    ),
    "two classes": (Cosine(0.8), lambda D, scale: np.cos(D / scale).prod(axis=-1)),
}
each_form = pytest.mark.parametrize(("kernel", "expected"), FORMS.values(), ids=FORMS)


def differences(A, B):
    return A[..., :, None, :] - B[..., None, :, :]


@each_form
def test_in_batches(kernel, expected):
    scales = np.array([0.5, 1.0, 2.0])
    distinct = kx.BatchKernel(kernel, 3, batch_in_axes=0).replace(length_scale=scales)
    sets = RNG.normal(size=(3, 4, 2))
    wanted = np.stack(
        [expected(differences(S, S), scale) for S, scale in zip(sets, scales, strict=True)]
    )
    np.testing.assert_allclose(distinct.gram(sets), wanted, rtol=1e-13)
    np.testing.assert_allclose(
        kx.BatchKernel(kernel, 3).gram(sets), expected(differences(sets, sets), 0.8), rtol=1e-13
    )
    on_one = kx.BatchKernel(kernel, 3, 0, batch_over_inputs=False).replace(length_scale=scales)
    wanted = np.stack([expected(differences(X, X), scale) for scale in scales])
    np.testing.assert_allclose(on_one.gram(X), wanted, rtol=1e-13)
    assert type(distinct[1]) is type(kernel)
    np.testing.assert_array_equal(distinct[1].length_scale, 1.0)


@each_form
def test_with_padding(kernel, expected):
    K = expected(differences(X, X), 0.8)
    found = np.asarray(kernel.gram(NAN_ROW))
    np.testing.assert_allclose(found[:6, :6], K, rtol=1e-13)
    assert np.isnan(found[6]).all()
    assert np.isnan(found[:, 6]).all()
    masked = kernel.gram(np.vstack([X, [[7.0, 7.0]]]), mask=np.arange(7) < 6)
    np.testing.assert_allclose(masked, np.block([[K, np.zeros((6, 1))], [np.zeros(6), 1.0]]))

    # The derivative in a hyperparameter is that of the real rows, by a central difference.
    total = lambda k: jnp.sum(k.gram(NAN_ROW, mask=np.full(7, True)))
    slope = jax.jit(jax.grad(total))(kernel)
    up, down = (expected(differences(X, X), 0.8 + h).sum() for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope.length_scale, (up - down) / 2e-5, rtol=1e-8)


@each_form
def test_in_composites(kernel, expected):
    K, eye = expected(differences(X, X), 0.8), np.eye(6)
    se = np.exp(-0.5 * (differences(X, X) ** 2).sum(axis=-1))
    found = (2.0 * kernel + kx.SEKernel(1.0) * kernel + kx.WhiteNoiseKernel(0.1)) ** 2
    np.testing.assert_allclose(found.gram(X), (2.0 * K + se * K + 0.1 * eye) ** 2, rtol=1e-13)
    first = kx.ActiveDimsKernel(kernel, [0])
    np.testing.assert_allclose(
        first.gram(X), expected(differences(X[:, :1], X[:, :1]), 0.8), rtol=1e-13
    )
    scales = np.array([0.7, 1.6])
    ard = kx.ARDKernel(kernel + kx.ConstantKernel(0.5), scales)
    wanted = expected(differences(X / scales, X / scales), 1.0) + 0.5
    np.testing.assert_allclose(ard.gram(X), wanted, rtol=1e-12)
    batch = kx.BatchKernel(2.0 * first, 2, {"length_scale": 0}).replace(length_scale=[0.8, 1.0])
    np.testing.assert_allclose(batch.gram(np.stack([X, X]))[0], 2.0 * first.gram(X), rtol=1e-13)


@each_form
def test_in_fits_and_files(kernel, expected, tmp_path):
    x = np.linspace(0.0, 5.0, 20)
    y = np.cos(1.3 * x) + 0.2 * np.random.default_rng(3).normal(size=20)
    gp = kx.GaussianProcess(1.5 * kernel, 0.2)
    result = kx.fit(gp, x, y, progress=False)
    assert result.converged
    assert result.loss < -float(gp.log_marginal_likelihood(x, y)) - 0.1
    fitted = float(result.gp.kernel.right_kernel.length_scale)
    assert abs(fitted - 0.8) > 1e-3
    # At the optimum the fitted process agrees with its formula in NumPy.
    variance = float(result.gp.kernel.left_kernel.value)
    K = variance * expected(differences(x[:, None], x[:, None]), fitted)
    K = K + float(result.gp.noise_variance) * np.eye(20)
    loss = 0.5 * (y @ np.linalg.solve(K, y) + np.linalg.slogdet(2 * np.pi * K)[1])
    np.testing.assert_allclose(result.loss, loss, rtol=1e-9)

    for number, model in enumerate((kernel, result.gp, result.gp.condition(x, y))):
        path = tmp_path / f"{number}.json"
        kx.save(path, model)
        again = kx.load(path, classes=(type(kernel),))
        assert type(again) is type(model)
        if number < 2:
            assert again.equals(model)
        else:
            np.testing.assert_array_equal(again.mean(x + 0.1), model.mean(x + 0.1))
        with pytest.raises(kx.FormatError, match=f"unknown type '{type(kernel).__name__}'"):
            kx.load(path)


@each_form
def test_as_a_pure_function(kernel, expected):
    pure = kx.static(type(kernel))
    np.testing.assert_allclose(
        pure.gram(X, length_scale=0.8), expected(differences(X, X), 0.8), rtol=1e-13
    )
