"""Digits: what cancels, what overflows, and in which precision products are taken."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax import _inputs
from tests.test_docs import README, blocks

EPS32 = np.finfo(np.float32).eps
single = np.float32


# X01: sets of a batch far from each other have no common offset.
def test_each_set_of_a_batch_is_warned_of_by_itself(x64_off):
    seconds = np.array([1.7e9, 1.7e9 + 1])
    X = np.stack([seconds, seconds + 1e9])[..., None].astype(single)
    with pytest.warns(kx.PrecisionWarning, match=r"`X` column 0 is float32.*128 apart"):
        kx.BatchKernel(kx.SEKernel(), 2, 0).gram(X)
    one = kx.BatchKernel(kx.SEKernel(), 2, 0, False).gram(seconds)
    np.testing.assert_allclose(one[:, 0, 1], np.exp(-0.5), rtol=1e-6)


# X01: padding does not hide that the real rows run together.
def test_padded_rows_do_not_count_for_the_spread():
    X = np.array([1.7e9, 1.7e9 + 128, np.nan], single)
    with pytest.warns(kx.PrecisionWarning, match="128 apart"):
        kx.SEKernel(single(1)).gram(X)


# X02
def test_integers_of_32_bits_are_centred_too(x64_off):
    seconds = np.array([1_700_000_000, 1_700_000_001], np.int32)
    np.testing.assert_allclose(kx.SEKernel().gram(seconds)[0, 1], np.exp(-0.5), rtol=1e-6)


# X03
def test_far_from_zero_matrices_are_as_definite_as_near_it():
    X = (500 + np.arange(40) / 40).astype(single)
    exact = np.exp(-0.5 * ((X[:, None].astype(float) - X) / 0.25) ** 2)
    for k, n in ((kx.SEKernel(single(0.25)), 1), (kx.SEKernel([single(0.25)] * 200), 200)):
        K = np.asarray(k.gram(np.repeat(X[:, None], n, axis=1) if n > 1 else X), float)
        wanted = exact**n
        np.testing.assert_allclose(K, wanted, rtol=0, atol=(16 + n) * EPS32)
        assert np.linalg.eigvalsh(K)[0] >= -40 * EPS32 * np.trace(K)


# X06
def test_a_list_takes_the_precision_of_what_it_replaces():
    k = kx.SEKernel(single(1.0))
    for value in (2, 2.0, np.float64(2.0), [2.0, 3.0], (2, 3)):
        assert k.replace(length_scale=value).length_scale.dtype == jnp.float32
    assert k.replace(length_scale=np.array([2.0])).length_scale.dtype == jnp.float64


# X07
def test_numbers_below_the_normal_range_are_zero():
    k = kx.SEKernel(single(1e-30))
    np.testing.assert_array_equal(k.gram(np.array([1e-40, 0.0], single)), np.ones((2, 2)))
    traced = jax.jit(lambda scale: kx.SEKernel(scale).gram(np.zeros(2, single)))(single(1e-40))
    assert np.isnan(traced).all()
    with pytest.raises(kx.ParameterError, match=r"`length_scale` is 0\.0"):
        kx.SEKernel(single(1e-40))


# X11
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_linear_kernels_far_from_zero(offset):
    X = (1e6 + np.random.default_rng(0).normal(size=(5, 2)) * 1e6).astype(single)
    Z = X.astype(float) - offset
    expected, norms = Z @ Z.T, np.linalg.norm(Z, axis=1)
    K = np.asarray(kx.LinearKernel(single(1), single(offset)).gram(X), float)
    assert np.all(np.abs(K - expected) <= 18 * EPS32 * np.outer(norms, norms))


# X04, X05
@pytest.mark.parametrize("X", [jax.random.key(0), np.ones(2, np.longdouble)])
def test_other_arrays_are_no_points(X):
    with pytest.raises(kx.DTypeError, match=r"`X` has dtype .*Fix:"):
        kx.SEKernel().gram(X)


# I15
def test_lists_of_traced_numbers_are_points():
    k = kx.SEKernel(1.0)
    K, value = jax.jit(lambda a: (k.gram([a, a + 1]), k((a, a), [a, 1.0])))(0.0)
    np.testing.assert_allclose(K, k.gram([0.0, 1.0]), rtol=1e-15)
    np.testing.assert_allclose(value, np.exp(-0.5), rtol=1e-15)


# I15, R2: what is masked out is not read as a number.
def test_what_a_masked_array_masks_is_missing():
    X = np.ma.masked_array([0.0, 5.0, 1.0], [False, True, False])
    K = np.asarray(kx.SEKernel(1.0).gram(X))
    assert np.isnan(K[1]).all()
    np.testing.assert_allclose(K[0, 2], np.exp(-0.5), rtol=1e-15)


def products(jaxpr):
    """Every matrix product in a program, those in its parts included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(part):
                yield from products(getattr(part, "jaxpr", part))


def is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


# X08
def test_every_product_is_taken_in_full_precision():
    X, wide = np.zeros((130, 2)), np.zeros((5, 80))
    y = np.zeros(130)
    k = kx.SEKernel([1.0, 2.0]) + kx.LinearKernel()
    gp = kx.GaussianProcess(k, 0.1)
    programs = {
        "gram": jax.make_jaxpr(lambda k: k.gram(X))(k),
        "wide": jax.make_jaxpr(lambda k: k.gram(wide))(kx.LinearKernel()),
        "gradient": jax.make_jaxpr(jax.grad(lambda k: jnp.sum(k.gram(X))))(k),
        "tangent": jax.make_jaxpr(lambda k: jax.jvp(lambda k: k.gram(X), (k,), (k,)))(k),
        "likelihood": jax.make_jaxpr(lambda gp: gp.log_marginal_likelihood(X, y))(gp),
        "its gradient": jax.make_jaxpr(jax.grad(lambda gp: gp.log_marginal_likelihood(X, y)))(gp),
        "prediction": jax.make_jaxpr(lambda gp: gp.condition(X, y).variance(X[:3]))(gp),
    }
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    counts = {name: len(list(products(program.jaxpr))) for name, program in programs.items()}
    for name, program in programs.items():
        assert set(products(program.jaxpr)) <= {highest}, name
    assert counts["wide"] > 0
    assert counts["gradient"] > 0
    assert counts["prediction"] > 0


# X09
def test_the_examples_of_the_readme_in_32_bits(x64_off, monkeypatch, capsys):
    monkeypatch.setattr(_inputs, "_warned_of_precision", True)
    example, more, own, calculus = blocks(README, "python")
    names = {}
    with warnings.catch_warnings():
        # The optimiser may stop early, where 32 bits show no progress any more.
        warnings.simplefilter("ignore", kx.ConvergenceWarning)
        exec(re.sub(r"jax\.config\.update.*\n", "", example), names)
    exec(more, names)
    exec(own, names)
    exec(calculus, names)
    np.testing.assert_allclose(names["wave"].mean(names["x"]), np.sin(names["x"]), atol=0.02)
    capsys.readouterr()
    mean = np.asarray(names["posterior"].mean(names["ahead"]))
    assert mean.dtype == np.float32
    with jax.enable_x64(True):
        gp = jax.tree.map(lambda leaf: leaf.astype(float), names["result"].gp)
        exact = gp.condition(names["x"], names["y"]).mean(names["ahead"])
    np.testing.assert_allclose(mean, exact, rtol=1e-3, atol=1e-3)
