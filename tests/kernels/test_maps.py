"""Kernels around maps that have hyperparameters: fits, batches, files, and what they look like."""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx

T, SE, M32 = kx.transforms, kx.SEKernel, kx.Matern32Kernel
GIBBS, CHANGE, WARPED = kx.GibbsKernel, kx.ChangePointKernel, kx.WarpedKernel


class Bump(eqx.Module):
    """A user's map: an Equinox module with an array and a number."""

    height: Array
    width: float

    def __call__(self, x):
        return 1.0 + self.height * jnp.exp(-self.width * jnp.sum(x * x))


BUMP = Bump(jnp.asarray(0.7), 1.5)


def plus_one(x):
    return 1.0 + jnp.abs(x[0])


def kernels():
    """One of each, with arrays in the map."""
    return {
        "gibbs": GIBBS(T.LogLinear([0.1], -0.5)),
        "gibbs of a module": GIBBS(BUMP),
        "change point": CHANGE(SE(0.3), M32(2.0), 0.1, 4.0),
        "warped": WARPED(SE(0.6), T.Periodic(2.5)),
        "warped by a module": WARPED(SE(0.6), T.Chain(T.Linear([[1.0], [0.3]]), BUMP)),
    }


def test_the_arrays_of_a_map_are_hyperparameters():
    k = GIBBS(BUMP)
    assert list(k.hyperparameters) == [
        "length_scale_function.height",
        "length_scale_function.width",
    ]
    changed = k.replace(height=0.2, **{"length_scale_function.width": 2.0})
    np.testing.assert_allclose(changed.length_scale_function(jnp.ones(1)), 1 + 0.2 * np.exp(-2.0))
    assert kernels()["warped"].replace(period=3.0).warp.period == 3.0
    with pytest.raises(kx.ParameterError, match=r"'warp.period' is -1\.0, expected a finite value"):
        kernels()["warped"].replace(period=-1.0)


def test_a_length_scale_is_hidden_in_the_inner_kernel_alone():
    k = kx.ARDKernel(GIBBS(T.LogLinear([0.1, 0.2], -0.5)) * WARPED(SE(5.0), jnp.sin), [0.5, 2.0])
    assert list(k.hyperparameters) == [
        "inner_kernel.left_kernel.length_scale_function.weights",
        "inner_kernel.left_kernel.length_scale_function.bias",
        "length_scales",
    ]


@pytest.mark.parametrize("name", ["gibbs", "change point", "warped by a module"])
def test_a_map_is_fitted(name):
    X = np.linspace(-1.5, 1.5, 9)
    y = np.sin(3 * X) * (1 + X)
    start = kx.GaussianProcess(kernels()[name], 0.1)
    with pytest.warns(kx.ConvergenceWarning):
        result = kx.fit(start, X, y, max_steps=4, progress=False)
    assert result.loss < result.history[0] - 0.1
    for path, value in start.hyperparameters.items():
        assert np.all(np.asarray(result.gp.hyperparameters[path]) != np.asarray(value)), path


@pytest.mark.parametrize("name", kernels())
def test_a_batch_has_a_map_for_each_element(name):
    k, X = kernels()[name], np.linspace(-1.5, 1.5, 6).reshape(2, 3, 1)
    batch = kx.BatchKernel(k, 2, 0)
    paths = [path.removeprefix("inner_kernel.") for path in batch.hyperparameters]
    assert paths == list(k.hyperparameters)
    spread = {
        path: value * np.array([1.0, 1.5]).reshape(2, *(1,) * (value.ndim - 1))
        for path, value in batch.hyperparameters.items()
    }
    batch = batch.replace(**spread)
    K = batch.gram(X)
    for i in range(2):
        np.testing.assert_allclose(K[i], batch[i].gram(X[i]), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(K[0], k.gram(X[0]), rtol=1e-13, atol=1e-15)
    assert not np.allclose(K[1], k.gram(X[1]))
    with pytest.raises(kx.ShapeError, match="inside of a BatchKernel"):
        batch.inner_kernel.gram(X[0])


def test_batches_inside_a_map_and_beside_a_change():
    X = np.linspace(-1.5, 1.5, 3)
    inner = kx.BatchKernel(SE(), 2, 0, batch_over_inputs=False).replace(length_scale=[0.5, 2.0])
    K = WARPED(inner, T.Linear([[2.0]])).gram(X)
    np.testing.assert_allclose(K, np.stack([SE(0.25).gram(X), SE(1.0).gram(X)]), rtol=1e-13)
    K = CHANGE(inner, M32(), 0.1, 4.0).gram(X)
    for i, scale in enumerate((0.5, 2.0)):
        np.testing.assert_allclose(K[i], CHANGE(SE(scale), M32(), 0.1, 4.0).gram(X), rtol=1e-13)


@pytest.mark.parametrize("name", kernels())
def test_it_comes_back_from_a_file(name, tmp_path):
    k = kernels()[name]
    kx.save(tmp_path / "model.json", k)
    loaded = kx.load(tmp_path / "model.json", (Bump,))
    assert loaded.equals(k)
    assert repr(loaded) == repr(k)


def test_a_function_is_not_saved(tmp_path):
    for k in (GIBBS(plus_one), WARPED(SE(), T.Chain(jnp.sin, T.Linear([[1.0]])))):
        with pytest.raises(kx.FormatError, match=r"unction, which cannot be saved as data"):
            kx.save(tmp_path / "model.json", k)


@pytest.mark.parametrize(
    "planted",
    [
        None,
        "os.system",
        {"type": "Function", "fields": {"function": "print"}},
        {"type": "SEKernel", "fields": {"length_scale": None}},
        {"type": "tuple", "items": []},
    ],
)
@pytest.mark.parametrize("name", ["gibbs", "warped", "warped by a module"])
def test_a_file_that_holds_something_else_for_a_map(name, planted, tmp_path):
    file = tmp_path / "model.json"
    kx.save(file, kernels()[name])
    document = json.loads(file.read_text())
    fields = document["model"]["fields"]
    if name == "warped by a module":
        fields["warp"]["fields"]["first"] = planted
    else:
        fields["warp" if name == "warped" else "length_scale_function"] = planted
    file.write_text(json.dumps(document))
    with pytest.raises(kx.FormatError, match=r"Fix:"):
        kx.load(file, (Bump,))


def test_they_read_as_formulas():
    assert repr(2.0 * GIBBS(T.LogLinear([0.5, 1], -0.4))) == (
        "2 * Gibbs(length_scale_function=LogLinear(weights=[0.5, 1], bias=-0.4))"
    )
    assert repr(GIBBS(plus_one)) == "Gibbs(length_scale_function=plus_one)"
    assert repr(CHANGE(SE(), 2.0 * M32(), 0.5, 3.0, dim=1)) == (
        "ChangePoint(SE(length_scale=1), 2 * Matern32(length_scale=1), location=0.5, steepness=3, "
        "dim=1)"
    )
    assert repr(WARPED(SE(), T.Chain(T.Linear(np.eye(2)), jnp.sin))) == (
        "Warped(SE(length_scale=1), warp=Chain(first=Linear(matrix=float64[2,2]), second=sin))"
    )


def test_nothing_is_compiled_again_for_other_values_of_a_map():
    from kernax.kernels import _gram

    X = jnp.linspace(0.0, 1.0, 4)
    make = lambda v: GIBBS(T.LogLinear([v], v)) + WARPED(CHANGE(SE(v), M32(), v, v), T.Periodic(v))
    make(1.0).gram(X)
    size = _gram._gram._cache_size()
    for value in (2.0, np.float64(0.5), 3):
        make(value).gram(X)
    assert _gram._gram._cache_size() == size
