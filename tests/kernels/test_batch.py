"""Batches: each element equals the kernel of that element alone, whatever the shapes."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from tests.table import CASES, VARIED

RNG = np.random.default_rng(5)
POINTS = RNG.normal(size=(3, 4, 2))
SCALES = np.array([0.5, 1.0, 2.0])


def distinct(kernel, over_inputs=True):
    """A batch of three whose hyperparameters really differ."""
    batch = kx.BatchKernel(kernel, 3, 0, over_inputs)
    values = {
        path: value * jnp.asarray([1.0, 1.25, 0.75]).reshape(3, *[1] * (value.ndim - 1))
        for path, value in batch.hyperparameters.items()
    }
    return batch.replace(**values)


@pytest.mark.parametrize("name", [*VARIED, "matern52", "a user's kernel in two classes"])
def test_a_batch_is_a_loop(name):
    batch = distinct(CASES[name].kernel)
    K, diagonal = np.asarray(batch.gram(POINTS)), np.asarray(batch.diagonal(POINTS))
    assert K.shape == (3, 4, 4)
    scale = np.max(np.abs(K))
    for i in range(3):
        one = batch[i]
        assert type(one) is type(CASES[name].kernel)
        tol = {"rtol": 1e-14, "atol": 8 * np.finfo(float).eps * scale}
        np.testing.assert_allclose(K[i], one.gram(POINTS[i]), **tol)
        np.testing.assert_array_equal(K[i], K[i].T)
        np.testing.assert_allclose(diagonal[i], np.diag(K[i]), **tol)


@pytest.mark.parametrize("kernel", [kx.SEKernel(1.0), kx.PeriodicKernel(1.0, 1.3)], ids=repr)
def test_gradients_of_a_batch_of_larger_matrices(kernel):
    """Of so many pairs that a matrix on its own is differentiated by thin products."""
    batch = distinct(kernel)
    X = RNG.normal(size=(3, 130, 2))
    weights = jnp.asarray(RNG.normal(size=(130, 130)))

    def total(kernel, X):
        return jnp.sum(jnp.tensordot(kernel.gram(X), weights, axes=2))

    both = jax.jit(jax.grad(total, argnums=(0, 1)))
    found, points = both(batch, jnp.asarray(X))
    for i in range(3):
        one, slopes = both(batch[i], jnp.asarray(X[i]))
        for name, expected in one.hyperparameters.items():
            values = found.hyperparameters[f"inner_kernel.{name}"]
            np.testing.assert_allclose(values[i], expected, rtol=1e-9)
        np.testing.assert_allclose(points[i], slopes, rtol=1e-9, atol=1e-9 * jnp.abs(slopes).max())


@pytest.mark.parametrize("over_inputs", [True, False])
@pytest.mark.parametrize("axes", [0, None])
def test_every_form_of_call(axes, over_inputs):
    kernel = kx.SEKernel(1.0) + kx.WhiteNoiseKernel(0.1)
    batch = kx.BatchKernel(kernel, 3, axes, over_inputs)
    if axes == 0:
        batch = batch.replace(length_scale=SCALES)
    X, Y = (POINTS, POINTS[:, :2] + 1) if over_inputs else (POINTS[0], POINTS[0, :2] + 1)
    one = lambda i, A: A[i] if A.ndim == 3 else A
    for i in range(3):
        k = batch[i]
        Xi, Yi = one(i, X), one(i, Y)
        np.testing.assert_allclose(batch(X)[i], k.gram(Xi), rtol=1e-15)
        np.testing.assert_allclose(batch(X, Y)[i], k.gram(Xi, Yi), rtol=1e-15)
        np.testing.assert_allclose(batch.gram(X, Y)[i], k.gram(Xi, Yi), rtol=1e-15)
        np.testing.assert_allclose(batch(X, one(0, Y))[i], k(Xi, one(0, Y)), rtol=1e-15)
        np.testing.assert_allclose(batch(X, Y[..., 0, :].reshape(-1, 2)[0])[i],
                                   k(Xi, Y[..., 0, :].reshape(-1, 2)[0]), rtol=1e-15)  # fmt: skip
        np.testing.assert_allclose(batch([0.0, 0.0], [1.0, 1.0])[i], k([0.0, 0.0], [1.0, 1.0]))
        np.testing.assert_allclose(batch([0.0, 0.0])[i], 1.1)
    assert batch.batch_over_inputs == (0 if over_inputs else None)
    assert batch.batch_size == len(batch) == 3


def test_sizes_that_coincide():
    # 3 elements, 3 points, 3 dimensions: only ranks and declarations decide.
    X = RNG.normal(size=(3, 3, 3))
    batch = kx.BatchKernel(kx.SEKernel(1.0), 3, 0).replace(length_scale=SCALES)
    shared = kx.BatchKernel(kx.SEKernel(1.0), 3, 0, False).replace(length_scale=SCALES)
    ard = kx.BatchKernel(kx.SEKernel(SCALES), 3, 0)
    assert ard.hyperparameters["inner_kernel.length_scale"].shape == (3, 3)
    for i, scale in enumerate(SCALES):
        np.testing.assert_allclose(batch.gram(X)[i], kx.SEKernel(scale).gram(X[i]), rtol=1e-15)
        np.testing.assert_allclose(shared.gram(X[0])[i], kx.SEKernel(scale).gram(X[0]), rtol=1e-15)
        np.testing.assert_allclose(ard.gram(X)[i], kx.SEKernel(SCALES).gram(X[i]), rtol=1e-15)
    with pytest.raises(kx.ShapeError):
        batch.gram(X[0])
    with pytest.raises(kx.ShapeError):
        shared.gram(X)


def test_some_shared_and_some_not():
    inner = kx.PeriodicKernel(1.0, 2.0) + 3.0 * kx.SEKernel(1.0)
    by_name = kx.BatchKernel(inner, 3, {"period": 0, "value": 0, "left_kernel.length_scale": None})
    by_tree = kx.BatchKernel(inner, 3, _axes_like(inner))
    for batch in (by_name, by_tree):
        assert {path: v.shape for path, v in batch.hyperparameters.items()} == {
            "inner_kernel.left_kernel.length_scale": (),
            "inner_kernel.left_kernel.period": (3,),
            "inner_kernel.right_kernel.left_kernel.value": (3,),
            "inner_kernel.right_kernel.right_kernel.length_scale": (),
        }
        batch = batch.replace(period=SCALES)
        for i in range(3):
            expected = inner.replace(period=SCALES[i]).gram(POINTS[i])
            np.testing.assert_allclose(batch.gram(POINTS)[i], expected, rtol=1e-14)
    assert by_name.batch_in_axes == {
        "left_kernel.length_scale": None,
        "left_kernel.period": 0,
        "right_kernel.left_kernel.value": 0,
        "right_kernel.right_kernel.length_scale": None,
    }


def _axes_like(inner):
    """0 and None in the places of the hyperparameters."""
    leaves, treedef = jax.tree.flatten(inner)
    assert len(leaves) == 4
    return jax.tree.unflatten(treedef, [None, 0, 0, None])


def test_three_levels():
    X = RNG.normal(size=(2, 3, 4, 5, 1))
    inner = kx.BatchKernel(kx.SEKernel(1.0), 4, 0)
    middle = kx.BatchKernel(inner, 3, None)
    batch = kx.BatchKernel(middle, 2, 0)
    path = "inner_kernel.inner_kernel.inner_kernel.length_scale"
    assert batch.hyperparameters[path].shape == (2, 4)
    scales = RNG.uniform(0.5, 2.0, size=(2, 4))
    batch = batch.replace(length_scale=scales)
    K = batch.gram(X)
    assert K.shape == (2, 3, 4, 5, 5)
    for a, b, c in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        expected = kx.SEKernel(scales[a, c]).gram(X[a, b, c])
        np.testing.assert_allclose(K[a, b, c], expected, rtol=1e-15)
        np.testing.assert_allclose(batch[a][b][c].gram(X[a, b, c]), expected, rtol=1e-15)
    assert batch.gram(X, X[0, 0, 0]).shape == (2, 3, 4, 5, 5)


def test_inputs_over_the_inner_batch_only():
    inner = kx.BatchKernel(kx.SEKernel(1.0), 3, 0, True).replace(length_scale=SCALES)
    batch = kx.BatchKernel(inner, 2, 0, False)
    K = batch.gram(POINTS)
    assert K.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(K[1, 2], kx.SEKernel(2.0).gram(POINTS[2]), rtol=1e-15)


def test_side_by_side_batches_align_from_the_innermost():
    a = kx.BatchKernel(kx.SEKernel(1.0), 3, 0).replace(length_scale=SCALES)
    b = kx.BatchKernel(kx.LinearKernel(1.0), 3, 0).replace(variance=[1.0, 2.0, 3.0])
    k = 2.0 * a + b * kx.Matern32Kernel(0.7) + kx.BatchKernel(kx.PeriodicKernel(), 3)
    K = k.gram(POINTS)
    for i in range(3):
        one = 2.0 * a[i] + b[i] * kx.Matern32Kernel(0.7) + kx.PeriodicKernel()
        np.testing.assert_allclose(K[i], one.gram(POINTS[i]), rtol=1e-13)
    deep = kx.BatchKernel(a + kx.SEKernel(5.0), 2, 0) * b
    assert deep.gram(np.stack([POINTS, POINTS])).shape == (2, 3, 4, 4)
    np.testing.assert_allclose(
        deep.gram(np.stack([POINTS, POINTS]))[1, 2],
        ((a[2] + kx.SEKernel(5.0)) * b[2]).gram(POINTS[2]),
        rtol=1e-14,
    )


def test_wrappers_around_a_batch():
    a = kx.BatchKernel(kx.SEKernel(1.0) * kx.PeriodicKernel(), 3, 0)
    a = a.replace(period=SCALES)
    ard = kx.ARDKernel(a, [0.7, 2.0])
    assert "inner_kernel.inner_kernel.left_kernel.length_scale" not in ard.hyperparameters
    dims = kx.ActiveDimsKernel(a, [1])
    for i in range(3):
        one = kx.SEKernel([0.7, 2.0]) * kx.PeriodicKernel(1.0, SCALES[i] * np.array([0.7, 2.0]))
        np.testing.assert_allclose(ard.gram(POINTS)[i], one.gram(POINTS[i]), rtol=1e-13)
        np.testing.assert_allclose(dims.gram(POINTS)[i], a[i].gram(POINTS[i][:, 1:]), rtol=1e-13)


def test_everything_shared_broadcasts():
    batch = kx.BatchKernel(kx.SEKernel(1.0), 3, None, False)
    K = batch.gram(POINTS[0])
    np.testing.assert_array_equal(K, np.stack([kx.SEKernel(1.0).gram(POINTS[0])] * 3))


@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_none_and_of_one(size):
    batch = kx.BatchKernel(kx.SEKernel(1.0), size, 0)
    assert batch.gram(POINTS[:size]).shape == (size, 4, 4)


def test_padding_differs_between_elements():
    batch = distinct(kx.SEKernel(1.0) * kx.LinearKernel() + kx.WhiteNoiseKernel(0.1))
    X = POINTS.copy()
    X[0, 1] = np.nan
    X[2, 2:, 0] = np.nan
    real = ~np.isnan(X).any(-1)
    K, masked = np.asarray(batch.gram(X)), np.asarray(batch.gram(POINTS, mask=real))
    for i in range(3):
        rows = np.flatnonzero(real[i])
        alone = np.asarray(batch[i].gram(POINTS[i]))[np.ix_(rows, rows)]
        np.testing.assert_allclose(K[i][np.ix_(rows, rows)], alone, rtol=1e-14)
        assert np.isnan(K[i][~real[i]]).all()
        expected = np.eye(4)
        expected[np.ix_(rows, rows)] = alone
        np.testing.assert_allclose(masked[i], expected, rtol=1e-14)
    shared = batch.gram(POINTS, mask=[True, True, False, True])
    np.testing.assert_array_equal(np.asarray(shared)[:, 2], np.eye(4)[[2, 2, 2]])
    with pytest.raises(kx.ShapeError, match=r"`mask` has shape \(2, 4\), expected \(3, 4\)"):
        batch.gram(POINTS, mask=np.ones((2, 4), bool))


def test_gradients_of_elements_are_their_own():
    batch = distinct(kx.SEKernel(1.0) + kx.Matern32Kernel(0.8))
    X = jnp.asarray(POINTS)
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(jnp.sin(k.gram(X)))))(batch)
    of_one = jax.jit(jax.grad(lambda k, X: jnp.sum(jnp.sin(k.gram(X)))))
    for i in range(3):
        one = of_one(batch[i], POINTS[i])
        for path, value in one.hyperparameters.items():
            found = gradient.hyperparameters[f"inner_kernel.{path}"][i]
            np.testing.assert_allclose(found, value, rtol=1e-12)


def test_one_bad_element_leaves_the_others_alone():
    batch = kx.BatchKernel(kx.SEKernel(1.0), 3, 0)
    f = jax.jit(lambda scales: batch.replace(length_scale=scales).gram(jnp.asarray(POINTS)))
    good, bad = f(SCALES), f(np.array([0.5, -1.0, 2.0]))
    assert np.isnan(bad[1]).all()
    np.testing.assert_array_equal(bad[0], good[0])
    np.testing.assert_array_equal(bad[2], good[2])


def test_a_batch_is_frozen_copied_and_compared():
    batch = distinct(kx.SEKernel(1.0))
    for twin in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert twin.equals(batch)
        np.testing.assert_array_equal(twin.gram(POINTS), batch.gram(POINTS))
    assert repr(2.0 * batch).startswith("2 * Batch(SE(length_scale=[1, 1.25, 0.75]), batch_size=3")
    np.testing.assert_array_equal(batch.inner_kernel.length_scale, [1.0, 1.25, 0.75])
    assert batch.inner_kernel.length_scale.shape == (3,)


def test_a_batch_can_be_saved(tmp_path):
    inner = kx.BatchKernel(kx.SEKernel(1.0) * kx.PeriodicKernel(), 3, {"period": 0})
    batch = 2.0 * kx.BatchKernel(inner, 2, None, False).replace(period=SCALES)
    kx.save(tmp_path / "batch.json", batch)
    twin = kx.load(tmp_path / "batch.json")
    assert twin.equals(batch)
    np.testing.assert_array_equal(twin.gram(POINTS), batch.gram(POINTS))
    text = (tmp_path / "batch.json").read_text()
    for wrong, right in (('"batch_size": -1', '"batch_size": 2'), ('"axes": []', '"axes": [')):
        at = text.index(right)
        end = text.index("]", at) + 1 if right.endswith("[") else at + len(right)
        (tmp_path / "bad.json").write_text(text[:at] + wrong + text[end:])
        with pytest.raises(kx.FormatError, match="model"):
            kx.load(tmp_path / "bad.json")


def test_replace_knows_the_batch_axis():
    batch = kx.BatchKernel(kx.SEKernel(1.0), 3, 0)
    np.testing.assert_array_equal(
        batch.replace(length_scale=2.0).inner_kernel.length_scale, [2.0] * 3
    )
    ard = batch.replace(length_scale=np.ones((3, 2)))
    np.testing.assert_allclose(ard.gram(POINTS)[0], kx.SEKernel(1.0).gram(POINTS[0]), rtol=1e-14)
    with pytest.raises(kx.ShapeError, match=r"got shape \(4,\), expected \(3,\)"):
        batch.replace(length_scale=np.ones(4))
    with pytest.raises(kx.ParameterError, match=r"is -1\.0"):
        batch.replace(length_scale=[1.0, -1.0, 1.0])


def inside():
    return kx.BatchKernel(kx.SEKernel(1.0), 3, 0).inner_kernel


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda k: k.gram(POINTS[:2]), kx.ShapeError,
         r"`X` has shape \(2, 4, 2\), but the kernel is a batch over \(3,\) "
         r"\(`inner_kernel.length_scale` has shape \(3,\)\)"),
        (lambda k: k(POINTS[0]), kx.ShapeError, r"expects \(3, n, d\).*batch_over_inputs=False"),
        (lambda k: k(POINTS, POINTS[:2]), kx.ShapeError, r"`x2` has shape \(2, 4, 2\)"),
        (lambda k: k[3], IndexError, r"batch\[3\]: the batch has 3 elements.*-3 to 2"),
        (lambda k: k[-4], IndexError, r"batch\[-4\]"),
        (lambda k: k.pairwise(jnp.ones(2), jnp.ones(2)), AttributeError, "no `pairwise`"),
        (lambda k: k + kx.BatchKernel(kx.SEKernel(), 4), kx.ShapeError, "have 4 and 3 elements"),
        (lambda k: k * kx.BatchKernel(kx.SEKernel(), 3, 0, False), kx.ShapeError,
         "over inputs False and True"),
        (lambda k: inside().gram(POINTS[0]), kx.ShapeError, "cannot be evaluated by itself"),
        (lambda k: inside().pairwise(jnp.ones(3), jnp.ones(3)), kx.ShapeError, "by itself"),
        (lambda k: (inside() + 1.0)(POINTS[0]), kx.ShapeError, "cannot be evaluated by itself"),
        (lambda k: kx.BatchKernel(kx.SEKernel(), -1), kx.ParameterError, "`batch_size` is -1"),
        (lambda k: kx.BatchKernel(kx.SEKernel(), 2.5), kx.ParameterError, "`batch_size` is 2.5"),
        (lambda k: kx.BatchKernel(kx.SEKernel(), 3, 1), kx.ParameterError, "holds 1, expected 0"),
        (lambda k: kx.BatchKernel(kx.SEKernel(), 3, {"lenght_scale": 0}), kx.ParameterError,
         "did you mean 'length_scale'"),
        (lambda k: kx.BatchKernel(kx.SEKernel(), 3, kx.PeriodicKernel()), kx.ShapeError,
         "differ at 'period'"),
    ],
)  # fmt: skip
def test_batches_that_mean_nothing(call, error, text):
    with pytest.raises(error, match=text):
        call(kx.BatchKernel(kx.SEKernel(1.0), 3, 0))


def test_nothing_is_compiled_again_for_new_values():
    from kernax.kernels import _gram

    batch = kx.BatchKernel(kx.SEKernel(1.0), 3, 0)
    batch.gram(POINTS)
    size = _gram._gram._cache_size()
    for i in range(20):
        batch.replace(length_scale=SCALES + i).gram(POINTS)
    assert _gram._gram._cache_size() == size
