"""Checkpoints of one process: what they keep, and what of a folder is believed."""

import json
import os
import pickle
import shutil
import warnings
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kernax as kx
from kernax.distributed import _npz, _orbax, load_checkpoint, save_checkpoint


class State(NamedTuple):
    value: object
    key: object


def tree():
    return {
        "numbers": (1, -2.5, True, float("inf"), 1 << 80),
        "arrays": [np.arange(6.0).reshape(2, 3), np.zeros((0, 2)), np.array(1 + 2j), np.float32(3)],
        "jax": {"half": jnp.array([1.5, -2.0], jnp.bfloat16), "b": jnp.array([True]), "none": None},
        "swapped": np.arange(3, dtype=">i4"),
        "raw key": jax.random.PRNGKey(3),
    }


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(one).dtype == np.asarray(two).dtype.newbyteorder("=")
        np.testing.assert_array_equal(one, two)


def test_a_plain_tree_needs_no_model(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere") is None
    assert load_checkpoint(tmp_path) is None
    path = save_checkpoint(tmp_path / "new" / "folder", np.int64(12), tree())
    assert path == tmp_path / "new" / "folder" / "checkpoint-000000012.npz"
    step, found = load_checkpoint(path.parent)
    assert step == 12
    same(found, tree())
    assert [type(leaf) for leaf in found["numbers"]] == [int, float, bool, float, int]
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found["jax"]))


def test_as_the_model_has_it(tmp_path):
    kernel = 2.0 * kx.SEKernel(0.7) + kx.PeriodicKernel()
    keys = State(jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), 3))
    model = {"plain": tree(), "kernel": kernel, "adam": optax.adam(0.1).init(kernel), "keys": keys}
    save_checkpoint(tmp_path, 1, model)
    blank = jax.tree.map(jnp.zeros_like, {"kernel": kernel, "adam": model["adam"]})
    found = load_checkpoint(tmp_path, like=model | blank)[1]
    same(found | {"keys": 0}, model | {"keys": 0})
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(model), strict=True):
        assert isinstance(one, jax.Array) == isinstance(two, jax.Array)
    for one, two in zip(found["keys"], keys, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(two))
    forms = jax.eval_shape(lambda: {"kernel": kernel, "keys": keys})
    save_checkpoint(tmp_path, 2, {"kernel": kernel, "keys": keys})
    assert load_checkpoint(tmp_path, like=forms)[1]["keys"].value == keys.value
    with pytest.raises(kx.FormatError, match="nodes that are no dictionary, list or tuple"):
        load_checkpoint(tmp_path)


def test_the_newest_stay(tmp_path):
    for step in (1, 2, 10, 9, 30):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000000010.npz", "checkpoint-000000030.npz",
    ]  # fmt: skip
    assert load_checkpoint(tmp_path) == (30, {"step": 30})
    # An earlier step is kept beside them: it was asked for.
    save_checkpoint(tmp_path, 3, {"step": 3}, keep=2)
    assert len([*tmp_path.iterdir()]) == 3
    # The same step again is the newer one.
    save_checkpoint(tmp_path, 30, {"step": -30}, keep=2)
    assert load_checkpoint(tmp_path) == (30, {"step": -30})


def test_what_others_left_is_no_checkpoint(tmp_path):
    left = [".checkpoint-000000009.npz.0a1b2c3d.tmp", ".checkpoint-000000001.orbax.12345678.tmp"]
    left += ["checkpoint-000000009.orbax.orbax-checkpoint-tmp-17"]
    others = ["checkpoint-9.npz.bak", "checkpoint-x.npz", "notes.txt"]
    for name in left[::2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for name in (left[1], *others):
        (tmp_path / name).write_bytes(b"half")
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 1, [1.0])
    assert {path.name for path in tmp_path.iterdir()} == {*others, "checkpoint-000000001.npz"}
    assert load_checkpoint(tmp_path) == (1, [1.0])


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no checkpoint at all")


def one_byte(path):
    content = bytearray(path.read_bytes())
    place = content.index(np.float64(2.0).tobytes()) + 3
    content[place] ^= 1
    path.write_bytes(content)


def other_numbers(path):
    with np.load(path) as file:
        members = dict(file)
    np.savez(path, **members | {"0": members["0"] + 1})


def compressed(path):
    with np.load(path) as file:
        np.savez_compressed(path, **file)


def code(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.npy", pickle.dumps(Payload()))
    np.savez(path.with_name("objects.npz"), header=np.array([Payload()], object))
    path.write_bytes(path.with_name("objects.npz").read_bytes())


def other_step(path):
    path.write_bytes(path.with_name("checkpoint-000000001.npz").read_bytes())


def newer(path):
    with np.load(path) as file:
        members = dict(file)
    header = members["header"].tobytes().replace(b'"version": 1', b'"version": 2')
    _npz.write(path, json.loads(header), [members["0"]])


@pytest.mark.parametrize(
    "spoil", [half, empty, text, one_byte, other_numbers, compressed, code, other_step, newer]
)
def test_a_spoilt_file_is_passed_over(spoil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step, {"x": np.arange(3.0) + step - 1})
    spoil(path)
    with pytest.warns(kx.KernaxWarning, match=r"passed over: .*checkpoint-000000002.npz .*Fix:"):
        step, found = load_checkpoint(tmp_path)
    assert step == 1
    np.testing.assert_array_equal(found["x"], np.arange(3.0))
    path.with_name("checkpoint-000000001.npz").unlink()
    with pytest.warns(kx.KernaxWarning):
        assert load_checkpoint(tmp_path) is None
    assert not (tmp_path / "executed").exists()


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path, 1, {"x": 1.0})
    content = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for module, name in ((np, "savez"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(tmp_path, 1, {"x": 2.0})
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": np.zeros(3)}, r"`tree\['b'\]` is in checkpoint-000000001.npz and not in `like`"),
        ({"a": np.zeros(3), "b": 1, "c": 2}, r"`tree\['c'\]` is in `like` and not in checkpoint-"),
        ({"a": np.zeros(4), "b": 1}, r"`tree\['a'\]` is array float64 \(3,\) in .* float64 \(4,\)"),
        ({"a": np.zeros(3, "f4"), "b": 1}, r"`tree\['a'\]` is array float64 .* array float32"),
        (
            {"a": np.zeros(3), "b": 1.0},
            r"`tree\['b'\]` is int in checkpoint-.* and float in `like`",
        ),
        ({"a": np.zeros(3), "b": np.array(1)}, r"`tree\['b'\]` is int .* array int64 \(\)"),
        ([np.zeros(3), 1], r"`tree\[0\]` is in `like` and not in checkpoint-"),
    ],
)
def test_a_model_that_does_not_fit(like, message, tmp_path):
    save_checkpoint(tmp_path, 1, {"a": np.zeros(3), "b": 1})
    with pytest.raises(kx.FormatError, match=message + ".*Fix:"):
        load_checkpoint(tmp_path, like=like)
    save_checkpoint(tmp_path, 2, {"key": jax.random.key(1)})
    with pytest.raises(kx.FormatError, match=r"key of threefry2x32 uint32 .* key of rbg uint32"):
        load_checkpoint(tmp_path, like={"key": jax.random.key(1, impl="rbg")})


def test_refused(tmp_path, monkeypatch):
    for leaf in ("text", len, np.array(["a"]), np.array([None]), 1j):
        with pytest.raises(kx.FormatError, match=r"`tree\['a'\]\[0\]` (is a|has dtype)"):
            save_checkpoint(tmp_path, 1, {"a": [leaf]})
    with pytest.raises(kx.ParameterError, match="`step` is -1 and `keep` 3"):
        save_checkpoint(tmp_path, -1, [])
    with pytest.raises(kx.ParameterError, match="`keep` 0, expected at least"):
        save_checkpoint(tmp_path, 1, [], keep=0)
    with pytest.raises(kx.ParameterError, match=r"`step` got 1\.5"):
        save_checkpoint(tmp_path, 1.5, [])
    with pytest.raises(kx.ParameterError, match="`backend` is 'pickle', expected 'auto'"):
        save_checkpoint(tmp_path, 1, [], backend="pickle")
    monkeypatch.setattr(_orbax, "installed", lambda: False)
    with pytest.raises(kx.MissingExtraError, match=r"pip install 'kernax-gp\[scale\]'"):
        save_checkpoint(tmp_path, 1, [], backend="orbax")
    assert [*tmp_path.iterdir()] == []


def test_orbax(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    model = {"x": np.arange(5.0), "key": jax.random.key(3), "step": 4, "y": jnp.ones((2, 2))}
    save_checkpoint(tmp_path, 1, model, backend="npz")
    paths = [save_checkpoint(tmp_path, step, model, backend="orbax") for step in (2, 3, 3)]
    assert paths[2].name == "checkpoint-000000003.orbax"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, found = load_checkpoint(tmp_path, like=model)
    assert step == 3
    assert found["key"] == model["key"]
    same({**found, "key": 0}, {**model, "key": 0})
    assert isinstance(found["y"], jax.Array)
    # Half of it, and other numbers.
    (paths[2] / _orbax.MANIFEST).unlink()
    with pytest.warns(kx.KernaxWarning, match=r"checkpoint-000000003.orbax is not a whole"):
        assert load_checkpoint(tmp_path)[0] == 2
    shutil.rmtree(paths[2])
    largest = max(paths[0].rglob("*/d/*"), key=lambda path: path.stat().st_size)
    one = bytearray(largest.read_bytes())
    one[len(one) // 2] ^= 1
    largest.write_bytes(one)
    with pytest.warns(kx.KernaxWarning, match=r"checkpoint-000000002.orbax .* not as they were"):
        assert load_checkpoint(tmp_path)[0] == 1
    save_checkpoint(tmp_path, 4, model, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000004.npz"]
