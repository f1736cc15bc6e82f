"""Rows that devices and processes share: against one process, and errors on all of them."""

import re

import jax
import numpy as np
import pytest

import kernax as kx
from kernax.distributed import gather, local_rows, row_mesh, shard_rows
from tests.distributed import lines, run


def test_a_gaussian_process_of_shared_rows():
    first, second = map(lines, run(2, "process.py").stdout)
    assert float(first["mean"]) < 1e-8
    assert second["values"] == first["values"]


def test_two_devices_of_one_process(tmp_path):
    found = run(1, "devices.py", tmp_path, "npz", "orbax", devices_per_process=2)
    assert found.ok
    assert lines(found.stdout[0])["warned"] == "PrecisionWarning"


# What each of the errors says on every process; on the process at fault possibly shorter.
ERRORS = {
    "dtype": r"DTypeError `arrays\[0\]` is float32 on process {last} and float64 on process 0",
    "columns": r"ShapeError rows of `arrays\[0\]` have shape \(1,\) on process {last} and \(2,\)",
    "number": r"ShapeError process {last} passes 2 arrays and process 0 1, expected as many",
    "axis": r"ParameterError .*`axis` is 'columns', and the mesh has the axes \('rows',\)",
    "names": r"InputError `axis` is other on process {last} and rows on process 0",
    "complex": r"DTypeError .*`arrays\[0\]` has dtype complex128",
    "lengths": r"ShapeError .*`arrays\[1\]` has 3 rows and `arrays\[0\]` 41",
    "fill": r"InputError `fill` is 1.0 on process 1 and 0.0 on process 0",
    "global": r"InputError .*`arrays\[0\]` is shared between processes already",
}
OTHERS = {
    "shard_rows integers": r"DTypeError `arrays\[0\]` is int64, which cannot hold the nan of rows",
    "replicated": r"ParameterError the processes \[0, 1.*\] share rows along 'rows' of the mesh",
    "left out": r"ParameterError process 1 has no device in the mesh",
    "rows": r"ShapeError the arrays have 41 rows on process 1 and 40 on process 0.*local_rows",
    "contents": r"InputError `arrays\[0\]` holds other numbers on process 1 .*seed",
    "nothing": r"ShapeError no process passes a row",
    "leaf": r"FormatError `tree\['rows'\]` is array float64 \(2,\) in the tree of process {last}",
    "one more": r"FormatError `tree\['more'\]` is in the tree of process {last} and not in that of",
    "step": r"InputError `step` is 1 on process 1 and 0 on process 0",
    "written": r"(NotADirectoryError|OSError making the folder failed on process 0)",
}


@pytest.mark.parametrize(("processes", "backends"), [(2, ("npz", "orbax")), (4, ("auto",))])
def test_processes_are_one(processes, backends, tmp_path):
    found = run(processes, "processes.py", tmp_path, *backends)
    expected = np.load(tmp_path / "expected.npy")
    scale = np.abs(expected).max()
    for layout in ("shared", "local") if processes == 2 else ("local",):
        for ring in (False, True):
            for i in range(processes):
                product = np.load(tmp_path / f"{layout}-{ring}-{i}.npy")
                np.testing.assert_allclose(product, expected, rtol=0, atol=1e-10 * scale)
    patterns = OTHERS | {
        f"{name} {what}": pattern
        for name in ("shard_rows", "local_rows")
        for what, pattern in ERRORS.items()
    }
    for i, output in enumerate(found.stdout):
        said = lines(output)
        for name, pattern in patterns.items():
            assert re.match(pattern.format(last=processes - 1), said[name]), (i, name, said[name])
        assert re.match(r"InputError process \d is at (save|load)_checkpoint", said["calls"])
        for backend in backends:
            assert said[f"{backend} like"].startswith("FormatError `tree['key']` is in")
            kind = "orbax" if backend == "auto" else backend
            assert said[f"{backend} file"] == f"checkpoint-000000005.{kind}"


def test_one_device():
    mesh, X = row_mesh("points"), np.random.default_rng(0).normal(size=(5, 2))
    for share in (shard_rows, local_rows):
        shared, mask = share(mesh, X, X[:, 0] > 0)
        assert isinstance(shared, jax.Array)
        assert shared.sharding.spec == jax.sharding.PartitionSpec("points")
        np.testing.assert_array_equal(gather(shared), X)
        assert mask.dtype == bool
        assert share(mesh, [[1, 2], [3, 4]]).dtype == np.int64
    operator = kx.KernelOperator(kx.SEKernel(), shared, 0.1, mesh=mesh)
    np.testing.assert_allclose(operator @ X, kx.KernelOperator(kx.SEKernel(), X, 0.1) @ X)
    np.testing.assert_array_equal(gather(X), X)
    assert gather(3.0).shape == ()


@pytest.mark.parametrize("share", [shard_rows, local_rows])
def test_refused(share):
    mesh = row_mesh()
    with pytest.raises(kx.ShapeError, match="no array was passed"):
        share(mesh)
    with pytest.raises(kx.ShapeError, match=r"`arrays\[1\]` is one number"):
        share(mesh, [1.0], 2.0)
    with pytest.raises(kx.ShapeError, match=r"`arrays\[0\]` is a ragged list"):
        share(mesh, [[1.0], [2.0, 3.0]])
    with pytest.raises(kx.ShapeError, match=r"pass(es a row| at least one)"):
        share(mesh, np.zeros((0, 2)))
    with pytest.raises(kx.DTypeError, match=r"`arrays\[0\]` has dtype <U1"):
        share(mesh, ["a"])
    with pytest.raises(kx.ParameterError, match=r"`axis` is 'x', and the mesh has the axes"):
        share(mesh, [1.0], axis="x")
    square = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("a", "b"))
    with pytest.raises(kx.ParameterError, match="`axis` is None"):
        share(square, [1.0])
