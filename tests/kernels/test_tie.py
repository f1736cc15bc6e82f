"""Hyperparameters that are one: values, gradients and names of tied kernels."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.kernels import _gram

SE, M32 = kx.SEKernel, kx.Matern32Kernel
X = np.random.default_rng(0).normal(size=(5, 2))
PARTS = SE(0.7) + 2.0 * M32(0.5)
TARGET, SOURCE = "right_kernel.right_kernel.length_scale", "left_kernel.length_scale"
TIED = kx.tie(PARTS, {TARGET: SOURCE})
PLAIN = SE(0.7) + 2.0 * M32(0.7)


def test_two_places_with_one_value():
    padded = np.vstack([X, [[np.nan, 0.0]]])

    @jax.jit
    def evaluate(k):
        return (
            k.gram(X),
            k.gram(X, X[:2]),
            k.pairwise(*jnp.asarray(X[:2])),
            k.diagonal(X),
            k.gradient(X[:2]),
            k.gram(padded, mask=[True] * 6),
            ((k + 1.0) ** 2).gram(X),
            kx.ActiveDimsKernel(k, [1]).gram(X),
            kx.ARDKernel(k, [1.0, 2.0]).gram(X),
        )

    for found, wanted in zip(evaluate(TIED), evaluate(PLAIN), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    np.testing.assert_array_equal(TIED(X[0], X[1]), PLAIN(X[0], X[1]))
    assert TIED.sign() == 1
    assert TIED.stationary
    assert TIED.differentiability == PLAIN.differentiability


def test_the_one_that_is_read_is_no_hyperparameter():
    assert TIED.hyperparameters == {
        "inner_kernel.left_kernel.length_scale": 0.7,
        "inner_kernel.right_kernel.left_kernel.value": 2.0,
    }
    assert len(jax.tree.leaves(TIED)) == 2
    # The name is not ambiguous any more, and a new shape goes to both places.
    np.testing.assert_array_equal(
        TIED.replace(length_scale=[1.1, 2.0]).gram(X),
        (SE([1.1, 2.0]) + 2.0 * M32([1.1, 2.0])).gram(X),
    )
    with pytest.raises(kx.ParameterError, match=f"no hyperparameter '{TARGET}'"):
        TIED.replace(**{TARGET: 1.0})
    assert "Matern32(length_scale=left_kernel.length_scale)" in repr(TIED)


def test_the_gradient_is_the_sum():
    f = lambda k: jnp.sum(jnp.sin(k.gram(X)))
    tied, plain = jax.jit(lambda: (jax.grad(f)(TIED), jax.grad(f)(PLAIN)))()
    both = plain.left_kernel.length_scale + plain.right_kernel.right_kernel.length_scale
    np.testing.assert_allclose(tied.inner_kernel.left_kernel.length_scale, both, rtol=1e-14)


def test_in_a_batch_with_noise_and_under_a_common_length_scale():
    batch = kx.BatchKernel(TIED, 2, {"length_scale": 0}, False).replace(length_scale=[0.5, 2.0])
    K = batch.gram(X)
    np.testing.assert_allclose(K[1], (SE(2.0) + 2.0 * M32(2.0)).gram(X), rtol=1e-15)
    assert float(batch[1].inner_kernel.left_kernel.length_scale) == 2.0
    noisy = kx.tie(SE(0.7) + kx.WhiteNoiseKernel(0.1) + kx.ConstantKernel(0.3),
                   {"variance": "value"})  # fmt: skip
    np.testing.assert_allclose(noisy.diagonal(X), 1.6, rtol=1e-15)
    assert list(kx.ARDKernel(TIED, [1.0, 2.0]).hyperparameters) == [
        "inner_kernel.inner_kernel.right_kernel.left_kernel.value",
        "length_scales",
    ]
    wide = kx.ARDKernel(SE(), [1.0, 2.0]) + kx.ARDKernel(M32(), [3.0, 4.0])
    tied = kx.tie(wide, {"right_kernel.length_scales": "left_kernel.length_scales"})
    np.testing.assert_array_equal(tied.gram(X), (SE([1.0, 2.0]) + M32([1.0, 2.0])).gram(X))


def test_ties_around_ties():
    inside = "left_kernel.inner_kernel.left_kernel.length_scale"
    for ties, scale in (
        ({"right_kernel.length_scale": inside}, 0.7),
        ({inside: "right_kernel.length_scale"}, 9.0),
    ):
        k = kx.tie(TIED + SE(9.0), ties)
        expected = SE(scale) + 2.0 * M32(scale) + SE(scale)
        np.testing.assert_array_equal(k.gram(X), expected.gram(X))
        np.testing.assert_allclose(k.pairwise(*jnp.asarray(X[:2])), expected(X[0], X[1]))
        assert len(k.hyperparameters) == 2


def test_white_noise_tied_inside_a_tie():
    # The noise becomes a constant on the diagonal: ties are undone before.
    noisy = kx.tie(SE(0.7) + kx.WhiteNoiseKernel(0.1) + 0.3, {"variance": "value"})
    k = kx.tie(noisy * SE(5.0), {"right_kernel.length_scale": "left_kernel.inner_kernel.left_kernel"
                                 ".left_kernel.length_scale"})  # fmt: skip
    np.testing.assert_allclose(k.diagonal(X), 1.6, rtol=1e-15)
    assert len(k.hyperparameters) == 2


def test_a_length_scale_tied_to_a_period_is_hidden_too():
    k = SE(5.0) + kx.PeriodicKernel(1.0, 0.9)
    tied = kx.ARDKernel(kx.tie(k, {"left_kernel.length_scale": "period"}), [1.0, 2.0])
    np.testing.assert_array_equal(tied.gram(X), kx.ARDKernel(k, [1.0, 2.0]).gram(X))


def test_in_a_process_and_a_fit():
    y = np.sin(X[:, 0])
    tied, plain = kx.GaussianProcess(TIED, 0.1), kx.GaussianProcess(PLAIN, 0.1)
    value = tied.log_marginal_likelihood(X, y)
    np.testing.assert_array_equal(value, plain.log_marginal_likelihood(X, y))
    fixed = ("noise_variance", "kernel.inner_kernel.right_kernel.left_kernel.value")
    result = kx.fit(tied, X, y, fixed=fixed, progress=False)
    scale = result.gp.kernel.inner_kernel.left_kernel.length_scale
    assert float(result.loss) < -float(value)
    again = kx.GaussianProcess(SE(scale) + 2.0 * M32(scale), 0.1).log_marginal_likelihood(X, y)
    np.testing.assert_allclose(-again, result.loss, rtol=1e-12)


def test_copies_and_pickles():
    for twin in (copy.deepcopy(TIED), copy.copy(TIED), pickle.loads(pickle.dumps(TIED))):
        assert twin.equals(TIED)
        np.testing.assert_array_equal(twin.gram(X), TIED.gram(X))


def test_new_values_compile_nothing():
    TIED.gram(X)
    before = _gram._gram._cache_size()
    for scale in (0.5, 1.0):
        kx.tie(SE(scale) + 2.0 * M32(0.5), {TARGET: SOURCE}).gram(X)
        TIED.replace(length_scale=scale).gram(X)
    assert _gram._gram._cache_size() == before


@pytest.mark.parametrize(
    ("kernel", "ties", "error", "text"),
    [
        (PARTS, {"length": SOURCE}, kx.ParameterError, "no hyperparameter 'length'"),
        (PARTS, {"length_scale": "value"}, kx.ParameterError, "is ambiguous"),
        (PARTS, {SOURCE: SOURCE}, kx.ParameterError, "at the other end of a tie too"),
        (PARTS, {SOURCE: TARGET, TARGET: "value"}, kx.ParameterError, "at the other end of a tie"),
        (SE() + kx.LinearKernel(), {"offset": "length_scale"}, kx.ParameterError,
         "'right_kernel.offset' is a finite value and 'left_kernel.length_scale' .* > 0"),
        (SE([1.0, 2.0]) + SE(), {"right_kernel.length_scale": SOURCE}, kx.ShapeError,
         r"has shape \(\) and 'left_kernel.length_scale' \(2,\)"),
        (kx.BatchKernel(PARTS, 2, 0), {TARGET: SOURCE}, kx.ParameterError, "is a batch"),
    ],
)  # fmt: skip
def test_ties_that_mean_nothing(kernel, ties, error, text):
    with pytest.raises(error, match=text) as caught:
        kx.tie(kernel, ties)
    assert "Fix:" in str(caught.value)


def test_what_is_not_tied_is_no_tied_kernel():
    with pytest.raises(kx.ParameterError, match=r"are not tied in .*Fix: use kernax\.tie"):
        kx.TiedKernel(PARTS, ((TARGET, SOURCE),))
