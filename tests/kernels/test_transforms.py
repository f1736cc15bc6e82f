"""Chosen dimensions, and one length-scale per dimension."""

import jax
import numpy as np
import pytest

import kernax as kx

ARD, DIMS, SE = kx.ARDKernel, kx.ActiveDimsKernel, kx.SEKernel


@pytest.mark.parametrize("dim", [3, -4, 7, -7])
def test_a_dimension_that_is_not_there(dim):
    k = DIMS(SE(1.0), [dim])
    text = rf"`active_dims` names dimension {dim}, but the points have dimension 3.*from -3 to 2"
    for evaluate in (
        k.gram,
        jax.jit(k.gram),
        k.diagonal,
        lambda X: k(X, X),
        lambda X: k(X[0], X[0]),
    ):
        with pytest.raises(kx.ShapeError, match=text):
            evaluate(np.ones((4, 3)))


@pytest.mark.parametrize(
    ("dims", "text"),
    [
        ([], "is empty, expected at least one"),
        ([0, 0], r"\[0, 0\], expected no dimension twice"),
        ([0.5], "expected whole numbers"),
        ([True, False], "expected whole numbers"),
        ("x", "expected whole numbers"),
        (None, "expected whole numbers"),
    ],
)
def test_dimensions_that_mean_nothing(dims, text):
    with pytest.raises(kx.ParameterError, match=text):
        DIMS(SE(1.0), dims)


def test_one_column_under_two_names():
    with pytest.raises(
        kx.ParameterError, match=r"names a dimension twice for points of dimension 3"
    ):
        DIMS(SE(1.0), [0, -3]).gram(np.ones((2, 3)))


@pytest.mark.parametrize("dims", [[1], (1,), 1, np.array([1]), -2])
def test_dimensions_in_any_form(dims):
    X = np.random.default_rng(0).normal(size=(4, 3))
    k = DIMS(SE(0.7), dims)
    np.testing.assert_allclose(k.gram(X), SE(0.7).gram(X[:, 1]), rtol=1e-15)
    assert isinstance(k.active_dims, tuple)
    assert isinstance(k.replace(length_scale=0.9), DIMS)


def test_the_inner_kernel_sees_only_its_dimensions():
    X = np.random.default_rng(0).normal(size=(4, 3))
    inner = DIMS(SE(0.7), [2]) * DIMS(kx.LinearKernel(), [0])
    np.testing.assert_allclose(
        inner.gram(X), np.asarray(SE(0.7).gram(X[:, 2])) * np.outer(X[:, 0], X[:, 0]), rtol=1e-14
    )


@pytest.mark.parametrize("lengths", [2, 1, 4])
def test_as_many_length_scales_as_dimensions(lengths):
    k = ARD(SE(1.0), np.ones(lengths))
    text = rf"`length_scales` has shape \({lengths},\), but `x1` has dimension 3"
    with pytest.raises(kx.ShapeError, match=text):
        k.gram(np.ones((4, 3)))
    with pytest.raises(kx.ShapeError, match="`length_scales`"):
        k(np.ones(3), np.ones(3))


def test_both_sets_of_points_are_checked():
    with pytest.raises(kx.ShapeError, match="dimension 2 and `x2` has dimension 3"):
        ARD(SE(1.0), np.ones(2))(np.ones((4, 2)), np.ones((4, 3)))


def test_replace_keeps_the_number_of_length_scales():
    k = ARD(SE(1.0), [1.0, 2.0])
    with pytest.raises(kx.ShapeError, match=r"'length_scales' got shape \(5,\), expected \(2,\)"):
        k.replace(length_scales=np.ones(5))
    np.testing.assert_array_equal(k.replace(length_scales=3.0).length_scales, [3.0, 3.0])
    with pytest.raises(kx.ShapeError, match=r"`length_scales` has shape \(\), expected \(d,\)"):
        ARD(SE(1.0), 2.0)


@pytest.mark.parametrize("lengths", [1, 2, 5])
def test_a_vector_length_scale_on_an_isotropic_kernel_is_one_per_dimension(lengths):
    X = np.random.default_rng(0).normal(size=(4, 3))
    for cls in (SE, kx.Matern32Kernel, kx.PeriodicKernel, kx.RationalQuadraticKernel):
        np.testing.assert_allclose(
            cls([0.5, 1.0, 2.0]).gram(X),
            ARD(cls(9.0), [0.5, 1.0, 2.0]).gram(X)
            if cls is not kx.PeriodicKernel
            else cls([0.5, 1.0, 2.0], 1.0).gram(X),
            rtol=1e-14,
        )
        with pytest.raises(
            kx.ShapeError,
            match=rf"`length_scale` has shape \({lengths},\), but the points have dimension 3",
        ):
            cls(np.ones(lengths)).gram(X)


def test_length_scales_inside_are_gone():
    k = ARD(
        2.0 * SE(5.0) + kx.RationalQuadraticKernel(4.0, 1.5) * kx.PeriodicKernel(3.0, 0.9),
        [1.0, 2.0],
    )
    assert sorted(k.hyperparameters) == [
        "inner_kernel.left_kernel.left_kernel.value",
        "inner_kernel.right_kernel.left_kernel.alpha",
        "inner_kernel.right_kernel.right_kernel.period",
        "length_scales",
    ]
    with pytest.raises(
        kx.ParameterError, match="no hyperparameter 'length_scale'; did you mean 'length_scales'"
    ):
        k.replace(length_scale=2.0)
    assert len(jax.tree.leaves(k)) == 4
    assert float(SE(5.0).length_scale) == 5.0


def test_a_users_length_scale_reads_as_one():
    from tests.table import Cosine

    k = ARD(Cosine(5.0), [0.5, 2.0])
    np.testing.assert_allclose(k([0.0, 0.0], [1.0, 3.0]), np.cos(2.0), rtol=1e-14)
    assert list(k.hyperparameters) == ["length_scales"]


def test_far_from_the_origin_no_digit_is_lost():
    X = np.array([[1e9, 0.0], [1e9 + 0.5, 0.0]])
    np.testing.assert_allclose(
        ARD(SE(1.0), [0.3, 1.0]).gram(X)[0, 1], np.exp(-0.5 * (0.5 / 0.3) ** 2), rtol=1e-14
    )
