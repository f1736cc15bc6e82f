"""The format: old files load; what is not exactly one is refused by path, and never run."""

import copy
import json
import os
import pickle
import re
import sys

import numpy as np
import pytest

import kernax as kx
from kernax import io
from tests.table import Laplacian, Tilted


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.json"


VERSION_1 = """
{"format": "kernax", "version": 1, "extra": {}, "model": {"type": "Posterior", "fields": {
  "X": {"type": "array", "dtype": "float64", "shape": [3, 1], "data": [0.0, 0.0, 1.0]},
  "y": {"type": "array", "dtype": "float64", "shape": [3], "data": [1.0, 0.0, -1.0]},
  "mask": {"type": "array", "dtype": "bool", "shape": [3], "data": [true, false, true]},
  "column": true, "shift": null,
  "gp": {"type": "GaussianProcess", "fields": {
    "kernel": {"type": "ARDKernel", "fields": {
      "inner_kernel": {"type": "SEKernel", "fields": {"length_scale": {"type": "unit"}}},
      "length_scales": {"type": "array", "dtype": "float64", "shape": [1], "data": [2.0]}}},
    "noise_variance": {"type": "array", "dtype": "float64", "shape": [], "data": [0.5]},
    "mean": {"type": "ConstantMean", "fields": {
      "value": {"type": "array", "dtype": "float64", "shape": [], "data": [0.25]}}},
    "solver": {"type": "Dense", "fields": {}}}}}}}
"""


def test_a_file_of_version_1_loads(file):
    file.write_text(VERSION_1)
    posterior = kx.load(file, strict=True)
    k = lambda x, y: np.exp(-0.5 * (np.subtract.outer(x, y) / 2.0) ** 2)
    X, Xs = np.array([0.0, 1.0]), np.array([0.0, 0.5])
    weights = np.linalg.solve(k(X, X) + 0.5 * np.eye(2), np.array([0.75, -1.25]))
    expected = 0.25 + k(Xs, X) @ weights
    np.testing.assert_allclose(posterior.mean(Xs), expected[:, None], rtol=1e-12)


def refused(file, content, message, **options):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kx.FormatError, match=message) as caught:
        kx.load(file, **options)
    assert "Fix: " in str(caught.value)
    return str(caught.value)


def test_every_truncated_file_is_refused(file):
    kx.save(file, kx.SEKernel(0.1))
    content = file.read_bytes()
    for length in range(len(content)):
        refused(file, content[:length], "is not a whole JSON file")


GOOD = {"format": "kernax", "version": 1, "model": {"type": "ZeroMean", "fields": {}}, "extra": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "keras"}, "is not a Kernax model. Fix: pass a file written by save()"),
        (
            {"version": 2, "new": 1},
            "was written in format 2, this is format 1. Fix: update kernax-gp.",
        ),
        ({"version": 0}, r"no valid version \(0\)"),
        ({"version": True}, r"no valid version \(True\)"),
        ({"version": "1"}, r"no valid version \('1'\)"),
        ({"version": None}, r"no valid version \(None\)"),
        ({"more": 1}, r"has the parts \['extra', 'format', 'model', 'more', 'version'\]"),
        ({"model": 3}, "holds no model"),
        ({"model": {"type": "tuple", "items": []}}, "holds no model"),
        ({"extra": []}, "holds no model"),
    ],
)
def test_a_wrong_header_is_refused(change, message, file):
    assert type(kx.load(_written(file, GOOD))) is kx.ZeroMean
    text = refused(file, json.dumps(GOOD | change), message)
    assert str(file) in text


def _written(file, document):
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"[1]", b'"kernax"', b"9" * 5000, b"\0" * 50],
    ids=["empty", "not utf-8", "deep", "null", "list", "text", "long number", "zeros"],
)
def test_what_is_no_document_is_refused(content, file):
    refused(file, content, "is not a (whole JSON file|Kernax model)")


def test_the_size_is_looked_at_first(file, monkeypatch):
    monkeypatch.setattr(io, "MOST_BYTES", 100)
    refused(file, " " * 101, "has more than the 100 bytes that a model may have")
    with pytest.raises(kx.FormatError, match="more than the 100 bytes"):
        kx.load("/dev/zero")


def test_what_looks_like_code_never_runs(file, tmp_path):
    proof = tmp_path / "proof"

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {proof}",)

    refused(file, pickle.dumps(Malicious()), "is not a whole JSON file")
    for name in (
        "os.system",
        "__reduce__",
        "eval",
        "builtins.eval",
        "antigravity",
        "Unit",
        "Field",
    ):
        fields = {"command": f"touch {proof}", "__reduce__": ["os.system", f"touch {proof}"]}
        document = GOOD | {"model": {"type": name, "fields": fields}}
        refused(file, json.dumps(document), rf"model has the unknown type '{re.escape(name)}'")
    for name in (["os.system"], {"a": 1}, 3, None):
        document = GOOD | {"model": {"type": name, "fields": {}}}
        refused(file, json.dumps(document), "model has the unknown type")
    document = GOOD | {"model": {"type": "ZeroMean", "fields": {"__class__": "os"}}}
    refused(file, json.dumps(document), r"model lacks the fields \[\] and .*\['__class__'\]")
    assert not proof.exists()
    assert "antigravity" not in sys.modules


def test_a_class_of_yours_has_to_be_passed(file):
    kx.save(file, Laplacian(1.0))
    message = r"model has the unknown type 'Laplacian'. Fix: pass classes=\(YourClass,\)"
    refused(file, file.read_bytes(), message)
    refused(file, file.read_bytes(), message, classes=(Tilted,))


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    kernel = 2.0 * kx.SEKernel([1.0, 0.5]) + kx.ActiveDimsKernel(
        kx.RationalQuadraticKernel(1.0, 2.0) ** 2, [1]
    )
    gp = kx.GaussianProcess(kernel, 0.1, kx.LinearMean([1.0, 2.0]))
    points = np.random.default_rng(3).normal(size=(4, 2))
    path = tmp_path_factory.mktemp("io") / "posterior.json"
    kx.save(path, gp.condition(points, points[:, 0], mask=np.arange(4) < 3))
    return json.loads(path.read_text())


def array(data, shape=None, dtype="float64"):
    shape = list(np.shape(data)) if shape is None else shape
    return {"type": "array", "dtype": dtype, "shape": shape, "data": data}


NUMBER, SCALE = array([1.0], []), "model.gp.kernel.left_kernel.right_kernel.length_scale"
DIMS, POWER = "model.gp.kernel.right_kernel", "model.gp.kernel.right_kernel.inner_kernel"
VALUE, NOISE = "model.gp.kernel.left_kernel.left_kernel.value", "model.gp.noise_variance"
KERNEL = {"type": "SEKernel", "fields": {"length_scale": NUMBER}}
DEEP = {"type": "tuple", "items": []}
for _ in range(300):
    DEEP = {"type": "tuple", "items": [DEEP]}
MISSING = object()

WRONG = [
    # Names of fields: missing, unknown, renamed.
    (SCALE, MISSING, r"right_kernel lacks the fields \['length_scale'\] and has .* fields \[\]"),
    ("model.gp.kernel.scale", NUMBER, r"kernel lacks the fields \[\] and .* fields \['scale'\]"),
    ("model.shift", MISSING, r"model lacks the fields \['shift'\]"),
    ("model.gp.noise", array([0.1], []), r"unknown fields \['noise'\]"),
    # Types: plain values for arrays and modules, arrays for static fields, one class for another.
    (SCALE, 1.0, "is float, expected array"),
    (SCALE, "1.0", "is str, expected array"),
    (SCALE, None, "is NoneType, expected array"),
    (SCALE, KERNEL, "is SEKernel, expected array"),
    (SCALE, {"type": "tuple", "items": [NUMBER]}, "is tuple, expected array"),
    (NOISE, {"type": "unit"}, "is Unit, expected array"),
    ("model.gp.kernel", NUMBER, "is ArrayImpl, expected AbstractKernel"),
    ("model.gp.kernel", {"type": "ZeroMean", "fields": {}}, "is ZeroMean, expected AbstractKernel"),
    (POWER, {"type": "SEKernel", "fields": []}, "unknown type 'SEKernel'"),
    (POWER, {"type": "AbstractKernel", "fields": {}}, "AbstractKernel has no formula"),
    ("model.gp.mean", KERNEL, "expected a mean"),
    ("model.gp.mean", None, "is None, expected a mean"),
    ("model.gp.mean", 1.0, "is float, expected module or array"),
    ("model.gp.solver", "magic", "`solver` is 'magic', expected 'auto', Dense"),
    ("model.gp.solver", NUMBER, "is an array, which it cannot be"),
    (f"{POWER}.exponent", array([2], [], "int64"), "exponent is an array, which it cannot be"),
    (f"{POWER}.exponent", 2.5, "got 2.5 where an int >= 1 is expected"),
    (f"{DIMS}.active_dims", {"type": "tuple", "items": [0.5]}, "`active_dims` got"),
    ("model.gp", KERNEL, "model.gp is not a Gaussian process"),
    # Arrays that are none.
    (SCALE, array([1.0], [2]), r"it has 1 numbers for shape \(2,\)"),
    (SCALE, array([1.0], [10**30]), "it has 1 numbers for shape"),
    (SCALE, array([], [0, 10**30]), "is not an array"),
    (SCALE, array([1.0], [1] * 99), "is not an array"),
    (SCALE, array([1.0], [-1]), r"its shape is \[-1\]"),
    (SCALE, array([1.0], "2"), "its shape is '2'"),
    (SCALE, array([1.0], [], "object"), "its dtype is 'object'"),
    (SCALE, array(["1.0"], []), "its data are not all numbers of float64"),
    (SCALE, array([True], []), "its data are not all numbers of float64"),
    (SCALE, array([1.5], [], "int64"), "its data are not all numbers of int64"),
    (SCALE, array([2**70], [], "int64"), "is not an array"),
    (SCALE, array(3.0, []), "its data are not all numbers"),
    (SCALE, array([10**400], []), "is not an array"),
    # Values.
    (SCALE, array([1.0, np.nan]), "is not finite"),
    (SCALE, array([1.0, -np.inf]), "is not finite"),
    (VALUE, array([-2.0], []), r"left_kernel\.value is -2\.0, expected a finite value > 0"),
    (VALUE, array([0.0], []), r"left_kernel\.value is 0\.0, expected a finite value > 0"),
    (NOISE, array([-1.0], []), r"gp\.noise_variance is -1\.0, expected a finite value >= 0"),
    (VALUE, array([True], [], "bool"), "has dtype bool"),
    ("model.X", array([np.nan] * 8, [4, 2]), "model.X is not finite"),
    # Shapes that do not go together.
    ("model.X", array([1.0] * 4), r"X has shape \(4,\) and y \(4,\), expected \(n, d\) and \(n,\)"),
    ("model.X", array([], [4, 0]), r"X has shape \(4, 0\)"),
    ("model.y", array([1.0] * 3), r"y \(3,\), expected"),
    ("model.y", 3.0, r"y \(\), expected"),
    ("model.mask", array([True] * 3, None, "bool"), "mask is not an array of 4 booleans"),
    ("model.mask", array([1] * 4, None, "int64"), "mask is not an array of 4 booleans"),
    ("model.mask", True, "mask is not an array of 4 booleans"),
    (NOISE, array([1.0] * 3), r"noise_variance has shape \(3,\) for 4 points"),
    ("model.column", 1, "has column 1 and shift None"),
    ("model.shift", {"type": "tuple", "items": [1.0]}, r"shift \(1.0,\)"),
    ("model.shift", {"type": "tuple", "items": [1.0, np.inf]}, r"shift \(1.0, inf\)"),
    (SCALE, array([1.0] * 3), r"`length_scale` has shape \(3,\)"),
    ("model.gp.mean.weights", array([1.0] * 3), r"`weights` has shape \(3,\)"),
    # Nesting without end.
    ("model.gp.mean", DEEP, "is nested too deeply"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_what_does_not_fit_is_refused_by_path(path, value, message, document, file):
    changed = copy.deepcopy(document)
    *parents, last = path.split(".")
    node = changed
    for name in parents:
        node = node[name] if name == "model" else node["fields"][name]
    if value is MISSING:
        del node["fields"][last]
    else:
        node["fields"][last] = value
    text = refused(file, json.dumps(changed), message)
    # The path, or that of the object the field belongs to.
    assert ".".join(parents) in text or "model: " in text
    assert len(text.splitlines()) == 1


def test_the_unchanged_document_loads(document, file):
    assert kx.load(_written(file, document)).mean([[1.0, 2.0]]).shape == (1,)
