"""Files of models: what is saved comes back to the bit, and what is not such a file is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import kernax as kx
from kernax import io
from tests.table import CASES, NAMES, Cosine, Laplacian, Tilted

OURS = (Laplacian, Tilted, Cosine)


class Slope(eqx.Module):
    """A user's mean that is no `AbstractMean`: plain values beside an array."""

    slope: float
    bias: Array
    name: Any = "slope"

    def __call__(self, X):
        return self.slope * X[:, 0] + self.bias


class Terms(kx.AbstractMean):
    """A user's mean with a list of arrays."""

    terms: list

    def __call__(self, X):
        return self.terms[0] * X[:, 0] + self.terms[1][0]


def there_and_back(path, model, classes=()):
    kx.save(path, model)
    return kx.load(path, classes)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.json"


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_comes_back(name, file):
    kernel = CASES[name].kernel
    loaded = there_and_back(file, kernel, OURS)
    assert type(loaded) is type(kernel)
    assert loaded.equals(kernel)
    assert repr(loaded) == repr(kernel)


@pytest.mark.parametrize(
    ("mean", "classes"),
    [
        (kx.ZeroMean(), ()),
        (kx.ConstantMean(0.1), ()),
        (kx.LinearMean([0.1, -1e-300], np.pi), ()),
        (Slope(2.5, jnp.asarray(0.1)), (Slope,)),
        (Slope(2, jnp.asarray(0.1)), (Slope,)),
        (Terms([jnp.asarray(0.1), jnp.ones(2)]), (Terms,)),
    ],
    ids=["zero", "constant", "linear", "equinox", "whole number", "list"],
)
@pytest.mark.parametrize("solver", ["auto", kx.Dense()], ids=["auto", "dense"])
def test_every_process_comes_back(mean, classes, solver, file):
    gp = kx.GaussianProcess(2.0 * kx.SEKernel([0.3, 1 / 3]), [0.1, 0.0, 2e-12], mean, solver)
    loaded = there_and_back(file, gp, classes)
    assert loaded.equals(gp)
    assert type(loaded.mean) is type(mean)
    assert loaded.solver == solver


POINTS = np.random.default_rng(3).normal(size=(6, 2))
TEST_POINTS = POINTS[:3] + 0.3
PADDED = np.where(np.arange(6)[:, None] % 3 == 1, np.nan, POINTS)
MASK = np.array([True, False, True, True, True, False])


@jax.jit
def predictions(posterior, points):
    """In one program for what was saved and what was loaded."""
    return posterior.mean(points), posterior.variance(points)


def process(noise=0.1):
    return kx.GaussianProcess(2.0 * kx.SEKernel([1.0, 0.5]), noise, kx.ConstantMean(0.3))


@pytest.mark.parametrize(
    ("noise", "X", "column", "mask"),
    [
        (0.1, POINTS, False, None),
        (0.1, POINTS, True, None),
        (0.1, PADDED, False, None),
        (np.linspace(0.1, 0.2, 6), PADDED, False, MASK),
        (0.1, POINTS, True, np.zeros(6, bool)),
        (0.1, jnp.arange(12).reshape(6, 2), False, MASK),
        (0.1, POINTS[:0], False, None),
    ],
    ids=[
        "plain",
        "column",
        "nan rows",
        "mask, own noise",
        "all padding",
        "integers, mask",
        "empty",
    ],
)
def test_a_posterior_predicts_to_the_bit(noise, X, column, mask, file):
    y = np.sin(3 * POINTS[: len(X), 0])
    posterior = process(noise).condition(X, y[:, None] if column else y, mask=mask)
    loaded = there_and_back(file, posterior)
    mean, variance = predictions(loaded, TEST_POINTS)
    expected = predictions(posterior, TEST_POINTS)
    for one, other in (
        (mean, expected[0]),
        (variance, expected[1]),
        (loaded.log_marginal_likelihood, posterior.log_marginal_likelihood),
        (loaded.status, posterior.status),
    ):
        np.testing.assert_array_equal(one, other)
    assert mean.shape == ((3, 1) if column else (3,))
    assert loaded.gp.equals(posterior.gp)
    assert loaded.data.X.dtype == posterior.data.X.dtype


@pytest.mark.usefixtures("x64_off")
def test_a_posterior_far_from_zero_keeps_its_offset(file):
    X = 1e6 + np.arange(6.0)
    y = np.sin(X).astype(np.float32)
    posterior = kx.GaussianProcess(kx.SEKernel(1.0), 0.1).condition(X, y)
    loaded = there_and_back(file, posterior)
    assert loaded.data.shift == posterior.data.shift == (1000002.0,)
    np.testing.assert_array_equal(loaded.mean(X + 0.25), posterior.mean(X + 0.25))


def test_plain_values_kept_beside_the_model(file):
    extra = {"input": ["t"], "note": "Zürich", "n": 3}
    kx.save(file, kx.SEKernel(0.1), extra)
    model, found = io.load_with_extra(file)
    assert model.equals(kx.SEKernel(0.1))
    assert found == extra


def test_the_file_is_strict_json_with_a_header(file):
    kx.save(file, kx.SEKernel(0.1))
    document = json.loads(file.read_text(), parse_constant=pytest.fail)
    length_scale = {"type": "array", "dtype": "float64", "shape": [], "data": [0.1]}
    assert document == {
        "format": "kernax",
        "version": 1,
        "model": {"type": "SEKernel", "fields": {"length_scale": length_scale}},
        "extra": {},
    }


def test_loading_runs_no_constructor(file):
    calls = []

    class Counting(kx.AbstractKernel):
        rate: Array = kx.positive()

        def __init__(self, rate):
            calls.append(rate)
            self.rate = rate

        def pairwise(self, x, y):
            return jnp.exp(-self.rate * jnp.sum(jnp.abs(x - y)))

    kernel = Counting(2.0)
    assert there_and_back(file, kernel, (Counting,)).equals(kernel)
    assert calls == [2.0]


# --- what cannot be saved -----------------------------------------------------------------------


def chain(terms):
    kernel = kx.SEKernel(1.0)
    for _ in range(terms - 1):
        kernel = kernel + kx.SEKernel(1.0)
    return kernel


def test_a_long_sum_comes_back(file):
    kernel = chain(150)
    assert there_and_back(file, kernel).equals(kernel)


SE = kx.SEKernel(1.0)


@pytest.mark.parametrize(
    ("model", "extra", "message"),
    [
        ({"a": 1}, {}, "`model` is a dict, expected a kernel, Gaussian process or posterior"),
        (kx.GaussianProcess(SE, 0.1, lambda X: X[:, 0]), {}, "model.mean is a function, which"),
        (kx.GaussianProcess(SE, 0.1, jnp.sin), {}, r"model\.mean is a .*cannot be saved as data"),
        (eqx.tree_at(lambda k: k.length_scale, SE, jnp.asarray(np.nan)), {}, "scale is not finite"),
        (
            eqx.tree_at(lambda k: k.length_scale, SE, jnp.ones((), jnp.float16)),
            {},
            "model.length_scale has dtype float16",
        ),
        (kx.GaussianProcess(SE, 0.1, Slope(np.inf, jnp.ones(()))), {}, "model.mean.slope is inf"),
        (SE, {"when": object()}, "`extra` is not plain data"),
        (SE, {"value": np.nan}, "`extra` is not plain data"),
        (chain(250), {}, "is nested too deeply. Fix: build the sum as a balanced tree"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_the_file(model, extra, message, file):
    file.write_text("before")
    with pytest.raises(kx.FormatError, match=message):
        kx.save(file, model, extra)
    assert file.read_text() == "before"
    assert os.listdir(file.parent) == [file.name]


# --- precision ----------------------------------------------------------------------------------


def save_in_64_bits(file, kernel):
    with jax.enable_x64(True):
        kx.save(file, kernel())


@pytest.mark.usefixtures("x64_off")
def test_64_bits_in_a_process_of_32_are_warned_of_by_path(file):
    save_in_64_bits(file, lambda: kx.SEKernel(0.1) + kx.ConstantKernel(2.0))
    paths = "model.left_kernel.length_scale, model.right_kernel.value"
    message = f"was saved in 64 bits, and this process computes in 32: {paths}. Fix: jax.config"
    with pytest.warns(kx.PrecisionWarning, match=message):
        kernel = kx.load(file)
    assert kernel.equals(kx.SEKernel(0.1) + kx.ConstantKernel(2.0))
    with pytest.raises(kx.FormatError, match=message):
        kx.load(file, strict=True)


@pytest.mark.usefixtures("x64_off")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e300, r"model\.length_scale is not finite"),
        (1e-300, r"model\.length_scale is 0\.0, expected a finite value > 0"),
    ],
)
def test_64_bits_beyond_the_range_of_32_are_refused(value, message, file):
    save_in_64_bits(file, lambda: kx.SEKernel(value))
    with pytest.raises(kx.FormatError, match=message):
        kx.load(file)


@pytest.mark.usefixtures("x64_off")
def test_integers_beyond_32_bits_are_refused(file):
    kx.save(file, process().condition(jnp.arange(12).reshape(6, 2), np.zeros(6)))
    content = file.read_text()
    assert '"int32"' in content
    assert kx.load(file, strict=True).data.X[0, 1] == 1
    file.write_text(content.replace('"int32"', '"int64"', 1).replace("11\n", "4294967297\n", 1))
    with pytest.raises(kx.FormatError, match=r"model\.X is not an array: its integers do not fit"):
        kx.load(file)


@pytest.mark.usefixtures("x64_off")
def test_32_bits_stay_32_bits_without_a_word(file):
    kernel = kx.SEKernel(0.1)
    assert there_and_back(file, kernel).equals(kernel)
    with jax.enable_x64(True):
        assert kx.load(file).length_scale.dtype == jnp.float32


# --- whole or not at all ------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(step, error, file, monkeypatch):
    kx.save(file, kx.SEKernel(0.1))

    def fail(*_):
        raise error

    monkeypatch.setattr(io.os, step, fail)
    with pytest.raises(type(error)):
        kx.save(file, kx.SEKernel(0.2))
    monkeypatch.undo()
    assert os.listdir(file.parent) == [file.name]
    assert kx.load(file).equals(kx.SEKernel(0.1))


def test_a_planted_link_is_not_written_through(file, monkeypatch):
    victim = file.with_name("victim")
    victim.write_text("precious")
    monkeypatch.setattr(io._files.secrets, "token_hex", lambda n: "0" * n)
    file.with_name(f".{file.name}.0000").symlink_to(victim)
    with pytest.raises(FileExistsError):
        kx.save(file, kx.SEKernel(0.1))
    assert victim.read_text() == "precious"
    assert not file.exists()


def test_no_folder_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        kx.save(tmp_path / "none" / "model.json", kx.SEKernel(0.1))
    assert os.listdir(tmp_path) == []


SAVE_FOR_EVER = """
import sys, jax, numpy as np
jax.config.update("jax_enable_x64", True)
import kernax as kx
kernels = [kx.SEKernel(np.full(20_000, value)) for value in (1 / 3, 2 / 3)]
for i in range(100_000):
    kx.save(sys.argv[1], kernels[i % 2])
    if i == 1:
        print("saved", flush=True)
"""


def test_killed_while_saving(file):
    with subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(file)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "saved\n"
            seen = set()
            until = time.monotonic() + 20
            # A reader never sees half a file, and neither does who comes after the kill.
            while len(seen) < 2 and time.monotonic() < until:
                seen.add(float(kx.load(file).length_scale[-1]))
            assert seen == {1 / 3, 2 / 3}
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    length_scale = np.asarray(kx.load(file).length_scale)
    assert length_scale.shape == (20_000,)
    assert set(length_scale) <= {1 / 3, 2 / 3}
    assert np.ptp(length_scale) == 0
    # What the kill left behind is in nobody's way.
    kx.save(file, kx.SEKernel(0.1))
    assert kx.load(file).equals(kx.SEKernel(0.1))


def test_a_posterior_of_a_batch_and_one_of_targets(tmp_path):
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(2, 5, 1)), rng.normal(size=(2, 5))
    X[1, 3:] = np.nan
    batch = kx.BatchKernel(kx.SEKernel(), 2, 0).replace(length_scale=[0.5, 1.0])
    for number, posterior in enumerate(
        (
            kx.GaussianProcess(batch, [0.1, 0.2]).condition(X, Y),
            kx.GaussianProcess(kx.SEKernel(), 0.1).condition(X[0], Y.T),
        )
    ):
        path = tmp_path / f"{number}.json"
        kx.save(path, posterior)
        at = np.array([[0.3]])
        found, expected = (predictions(each, at) for each in (kx.load(path), posterior))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
