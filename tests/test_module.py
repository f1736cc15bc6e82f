"""Hyperparameters: their constraints, names, replacement and identity."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx

SE = kx.SEKernel


class Bounded(kx.AbstractKernel):
    """One field of each constraint."""

    angle: Array = kx.interval(0.0, 3.0, 1.0)
    level: Array = kx.non_negative(0.5)
    slope: Array = kx.real(-1.0)
    width: Array = kx.positive(1.0)
    order: int = kx.positive_integer(2)

    def pairwise(self, x, y):
        return self.level + self.width * jnp.sum(x * y) ** self.order * self.angle


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SE(-1.0), r"SEKernel: `length_scale` is -1\.0, expected a finite value > 0\."),
        (lambda: SE(0.0), r"`length_scale` is 0\.0, expected a finite value > 0"),
        (lambda: SE(np.nan), "`length_scale` is nan, but must be finite"),
        (lambda: SE(np.inf), "`length_scale` is inf, but must be finite"),
        (lambda: SE([1.0, -2.0]), r"`length_scale` is -2\.0"),
        (lambda: SE(1e-310), r"`length_scale` is 0\.0"),
        (lambda: SE(jnp.asarray(-1.0)), r"`length_scale` is -1\.0"),
        (lambda: kx.PeriodicKernel(1.0, 0.0), r"PeriodicKernel: `period` is 0\.0"),
        (lambda: kx.RationalQuadraticKernel(1.0, -1.0), r"`alpha` is -1\.0"),
        (lambda: kx.ConstantKernel(-1.0), r"ConstantKernel: `value` is -1\.0"),
        (lambda: kx.WhiteNoiseKernel(0.0), r"`variance` is 0\.0"),
        (lambda: kx.ARDKernel(SE(), [1.0, 0.0]), r"`length_scales` is 0\.0"),
        (lambda: kx.LinearKernel(1.0, np.nan), "`offset` is nan, but must be finite"),
        (lambda: SE(1.0).replace(length_scale=-2.0), r"'length_scale' is -2\.0"),
        (lambda: Bounded(angle=3.0), r"`angle` is 3\.0, expected a value between 0 and 3"),
        (lambda: Bounded(angle=-0.1), "`angle` is -0.1"),
        (lambda: Bounded(level=-0.1), "`level` is -0.1, expected a finite value >= 0"),
        (lambda: Bounded(slope=np.inf), "`slope` is inf, but must be finite"),
        (lambda: Bounded(order=0), "got 0 where an int >= 1"),
        (lambda: Bounded(order=2.5), "got 2.5 where an int >= 1"),
        (lambda: kx.interval(1.0, 0.0), "lower=1.0, upper=0.0"),
        (lambda: kx.interval(0.0, np.inf), "finite bounds"),
    ],
)  # fmt: skip
def test_values_outside_their_constraint(make, text):
    with pytest.raises(kx.ParameterError, match=text) as caught:
        make()
    assert "Fix:" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_values_on_the_edge_are_inside():
    k = Bounded(level=0.0, slope=-1e300, width=1e-300, angle=2.999)
    assert float(k.level) == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1j, "dtype complex128"),
        (np.float16(1.0), "dtype float16"),
        (True, "dtype bool"),
        (object(), "dtype object"),
    ],
)
def test_what_is_no_number_is_no_hyperparameter(value, text):
    with pytest.raises(kx.DTypeError, match=f"`length_scale` has {text}.*Fix:"):
        SE(value)


@pytest.mark.parametrize("value", ["1.0", None, {}, abs, SE(1.0)])
def test_what_is_not_even_an_array(value):
    with pytest.raises(kx.DTypeError, match=r"`length_scale` is .*, expected a number.*Fix:"):
        SE(value)


def test_a_python_number_put_into_the_tree_is_a_hyperparameter():
    swapped = eqx.tree_at(lambda k: k.length_scale, SE(1.0), 1.5)
    assert swapped.structure is SE(1.0).structure
    np.testing.assert_array_equal(swapped(0.0, 1.0), SE(1.5)(0.0, 1.0))


def test_a_profile_or_a_mixin_of_a_subclass_is_used_everywhere():
    class Cauchy(kx.SEKernel):
        def profile(self, s):
            return 1.0 / (1.0 + s)

    class Dot:
        def pairwise(self, x, y):
            return jnp.sum(x * y)

    class Mixed(Dot, kx.SEKernel):
        pass

    X = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(Cauchy(1.0).gram(X), 1 / (1 + (X[:, None] - X) ** 2), rtol=1e-15)
    np.testing.assert_allclose(Mixed(1.0).gram(X), np.outer(X, X), rtol=1e-15)


def test_ragged_values():
    with pytest.raises(kx.ShapeError, match="`length_scale` got a ragged list"):
        SE([1.0, [2.0, 3.0]])


@pytest.mark.parametrize("value", [1.0, 1, np.float64(1), np.int64(1), np.array(1.0), [1.0]])
def test_numbers_of_any_type_become_strongly_typed_arrays(value):
    leaf = SE(value).length_scale
    assert isinstance(leaf, jax.Array)
    assert leaf.dtype == jnp.float64
    assert not leaf.weak_type


def test_a_field_without_a_constraint_is_converted_too():
    class Plain(kx.AbstractKernel):
        rate: Array
        count: Array = eqx.field(converter=jnp.asarray)

        def pairwise(self, x, y):
            return self.rate * self.count * jnp.sum(x * y)

    k = Plain(np.int32(2), jnp.asarray(3))
    assert k.rate.dtype == k.count.dtype == jnp.float64
    assert k([1.0], [1.0]) == 6.0
    gradient = jax.grad(lambda k: k([1.0], [1.0]))(k)
    assert gradient.hyperparameters == {"rate": 3.0, "count": 2.0}


# --- traced values ------------------------------------------------------------------------------


def test_built_and_replaced_inside_transformations():
    x, y = jnp.zeros(1), jnp.ones(1)
    f = lambda scale: SE(scale)(x, y)
    g = lambda scale: (SE(1.0) + 1.0).replace(length_scale=scale)(x, y) - 1.0
    for h in (f, g):
        np.testing.assert_allclose(jax.jit(h)(2.0), np.exp(-0.125), rtol=1e-15)
        np.testing.assert_allclose(jax.grad(h)(2.0), np.exp(-0.125) / 8, rtol=1e-14)
        scales = jnp.asarray([1.0, 2.0])
        np.testing.assert_allclose(jax.vmap(h)(scales), np.exp(-0.5 / scales**2), rtol=1e-15)
    _, total = jax.lax.scan(lambda c, s: (c, f(s)), 0.0, jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(total, np.exp([-0.5, -0.125]), rtol=1e-15)


@pytest.mark.parametrize("scale", [-1.0, 0.0, np.nan, np.inf])
def test_a_traced_value_outside_its_constraint_is_nan(scale):
    assert np.isnan(jax.jit(lambda s: SE(s)(0.0, 1.0))(scale))
    assert np.isnan(
        jax.jit(lambda s: SE(1.0).replace(length_scale=s).gram(jnp.ones(2)))(scale)
    ).all()


# --- names --------------------------------------------------------------------------------------


def test_hyperparameters_have_dotted_paths():
    k = 2.0 * SE(1.0) + kx.PeriodicKernel(1.3, 1.0) * kx.WhiteNoiseKernel(0.1)
    assert {path: float(value) for path, value in k.hyperparameters.items()} == {
        "left_kernel.left_kernel.value": 2.0,
        "left_kernel.right_kernel.length_scale": 1.0,
        "right_kernel.left_kernel.length_scale": 1.3,
        "right_kernel.left_kernel.period": 1.0,
        "right_kernel.right_kernel.variance": 0.1,
    }


def test_replace_by_path_by_name_and_by_the_end_of_a_path():
    k = 2.0 * SE(1.0) + kx.PeriodicKernel(1.3, 1.0)
    other = k.replace(value=3.0, period=2.0, **{"left_kernel.right_kernel.length_scale": 4.0})
    assert isinstance(other, kx.SumKernel)
    assert [float(v) for v in other.hyperparameters.values()] == [3.0, 4.0, 1.3, 2.0]
    assert [float(v) for v in k.hyperparameters.values()] == [2.0, 1.0, 1.3, 1.0]
    # A whole path comes before the end of another one.
    assert float(k.replace(**{"right_kernel.length_scale": 5.0}).right_kernel.length_scale) == 5.0
    ended = (2.0 * SE(1.0) + 3.0).replace(**{"right_kernel.length_scale": 5.0})
    assert float(ended.left_kernel.right_kernel.length_scale) == 5.0


@pytest.mark.parametrize(
    ("kernel", "name", "text"),
    [
        (SE(1.0), "lenght_scale",
         r"no hyperparameter 'lenght_scale'; did you mean 'length_scale'\?"),
        (SE(1.0) + 1.0, "lenght_scale", "did you mean 'length_scale'"),
        (SE(1.0), "zzz", r"no hyperparameter 'zzz'\. Fix: choose from length_scale"),
        (SE(1.0) + SE(2.0), "length_scale",
         "ambiguous.*left_kernel.length_scale, right_kernel.length_scale.*whole path"),
        (kx.ARDKernel(SE(1.0), [1.0]), "length_scale", "did you mean 'length_scales'"),
        (SE(1.0), "kernel.length_scale", "no hyperparameter 'kernel.length_scale'; did you mean"),
    ],
)  # fmt: skip
def test_names_that_are_not_there(kernel, name, text):
    with pytest.raises(kx.ParameterError, match=text):
        kernel.replace(**{name: 5.0})


def test_replace_checks_shapes():
    assert SE(1.0).replace(length_scale=[1.0, 2.0]).length_scale.shape == (2,)
    with pytest.raises(kx.ShapeError, match=r"'length_scale' got shape \(3,\), expected \(2,\)"):
        SE([1.0, 2.0]).replace(length_scale=[1.0, 2.0, 3.0])


def test_every_replace_returns_its_own_class():
    from tests.table import CASES

    for case in CASES.values():
        k = case.kernel
        for path, value in k.hyperparameters.items():
            new = k.replace(**{path: value * 0.875 + 0.03125})
            assert type(new) is type(k)
            np.testing.assert_array_equal(new.hyperparameters[path], value * 0.875 + 0.03125)


# --- identity -----------------------------------------------------------------------------------


def test_gradients_are_kernels_of_the_same_class():
    gradient = jax.grad(lambda k: jnp.sum(k.gram(jnp.arange(3.0))))(2.0 * SE(1.5))
    assert isinstance(gradient, kx.ProductKernel)
    assert list(gradient.hyperparameters) == ["left_kernel.value", "right_kernel.length_scale"]


def test_a_kernel_is_a_pytree_of_its_hyperparameters():
    k = 2.0 * SE(1.5)
    assert [float(leaf) for leaf in jax.tree.leaves(k)] == [2.0, 1.5]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, k)
    assert doubled.equals(4.0 * SE(3.0))
    # What is remembered for calls is no part of it.
    k(0.0, 1.0)
    assert jax.tree.structure(k) == jax.tree.structure(2.0 * SE(1.0))
    np.testing.assert_array_equal(k.replace(length_scale=3.0)(0.0, 1.0), (2.0 * SE(3.0))(0.0, 1.0))


def test_copies_and_pickles_are_equal_and_calls_agree():
    k = kx.ARDKernel(SE() * kx.PeriodicKernel(1.0, 2.0), [1.0, 2.0]) + Bounded()
    k(np.zeros(2), np.ones(2))
    for twin in (copy.copy(k), copy.deepcopy(k), pickle.loads(pickle.dumps(k))):
        assert twin.equals(k)
        np.testing.assert_array_equal(twin(np.zeros(2), np.ones(2)), k(np.zeros(2), np.ones(2)))


def test_kernels_are_frozen():
    with pytest.raises(AttributeError):
        SE(1.0).length_scale = 2.0
    with pytest.raises(AttributeError):
        SE(1.0).other = 2.0


def test_two_uses_of_one_kernel_are_independent():
    k = SE(1.0)
    both = (k + k).replace(**{"left_kernel.length_scale": 2.0})
    assert float(both.right_kernel.length_scale) == 1.0


def test_a_class_without_a_formula():
    class Empty(kx.AbstractKernel):
        pass

    with pytest.raises(TypeError, match=r"Empty has no formula\. Fix: define pairwise"):
        Empty()


def test_a_subclass_with_its_own_formula_uses_nothing_of_its_parents():
    class Skewed(kx.SEKernel):
        def pairwise(self, x, y):
            return jnp.sum(x) * jnp.sum(y) * self.length_scale

    k, X = Skewed(2.0), np.array([1.0, 3.0])
    np.testing.assert_allclose(k.gram(X), 2 * np.outer(X, X))
    assert not k.stationary
    np.testing.assert_allclose(kx.ARDKernel(k, [2.0]).gram(X), np.outer(X, X) / 4)


def test_methods_can_be_passed_to_transformations():
    k, X = SE(1.0), jnp.arange(3.0)
    np.testing.assert_array_equal(jax.jit(k.gram)(X), k.gram(X))
    np.testing.assert_array_equal(
        jax.vmap(k, in_axes=(0, None))(X, 0.0), k(X[:, None], jnp.zeros(1))
    )
