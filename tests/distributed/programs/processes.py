"""Several processes: products of rows that they share, and errors that are errors on all."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import kernax
from kernax.distributed import (
    gather,
    initialize,
    load_checkpoint,
    local_rows,
    row_mesh,
    save_checkpoint,
    shard_rows,
)

initialize()
P, here, folder = jax.process_count(), jax.process_index(), Path(sys.argv[1])
mesh, rng, n = row_mesh(), np.random.default_rng(3), 41
X, V = rng.normal(size=(n, 2)), rng.normal(size=(n, 3))
kernel = 1.5 * kernax.Matern52Kernel(0.8) + kernax.LinearKernel(0.2)

# As many rows for a process as it likes, none for the last.
cuts = [0, 30, 41, 41, 41][: P + 1] if P > 2 else [0, 30, 41]
own = slice(cuts[here], cuts[here + 1])
layouts = {"local": (local_rows(mesh, X[own]), local_rows(mesh, V[own], fill=0.0))}
if P == 2:
    layouts["shared"] = (shard_rows(mesh, X), shard_rows(mesh, V, fill=0.0))
for name, (points, vectors) in layouts.items():
    real = ~np.isnan(gather(points)).any(axis=1)
    np.testing.assert_array_equal(gather(points)[real], X)
    for ring in (False, True):
        # Tiles of 4 x 4, so that every device has a share of those that are used twice.
        operator = kernax.KernelOperator(kernel, points, 0.1, mesh=mesh, ring=ring, pairs=16)
        np.save(folder / f"{name}-{ring}-{here}.npy", gather(operator @ vectors)[real])
np.save(folder / "expected.npy", kernax.KernelOperator(kernel, X, 0.1) @ V)


def attempt(name, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        print(f"{name}: {type(error).__name__} {error}".replace("\n", " "))
    else:
        print(f"{name}: no error")


last = here == P - 1
for share in (shard_rows, local_rows):
    attempt(f"{share.__name__} dtype", share, mesh, X.astype(np.float32) if last else X)
    attempt(f"{share.__name__} columns", share, mesh, X[:, :1] if last else X)
    attempt(f"{share.__name__} number", share, mesh, *([X, V] if last else [X]))
    attempt(f"{share.__name__} axis", share, mesh, X, axis="columns" if last else None)
    attempt(f"{share.__name__} names", share, row_mesh("other") if last else mesh, X)
    attempt(f"{share.__name__} complex", share, mesh, X + 1j if last else X)
    attempt(f"{share.__name__} lengths", share, mesh, X, V[:3] if last else V)
    attempt(f"{share.__name__} fill", share, mesh, X, fill=float(here))
    attempt(f"{share.__name__} integers", share, mesh, np.arange(n))
    attempt(f"{share.__name__} global", share, mesh, layouts["local"][0])
both = Mesh(np.asarray(jax.devices()).reshape(1, P), ("rows", "columns"))
one = Mesh(np.asarray(jax.devices()[:1]), ("rows",))
attempt("replicated", local_rows, both, X, axis="rows")
attempt("left out", shard_rows, one, X)
np.testing.assert_array_equal(gather(shard_rows(both, X, axis="rows")), X)
attempt("rows", shard_rows, mesh, X[: 40 + here])
attempt("contents", shard_rows, mesh, X + here)
attempt("nothing", local_rows, mesh, X[:0])
attempt("calls", save_checkpoint if last else load_checkpoint, folder, *([1, X] if last else []))

tree = {"rows": layouts["local"][0], "key": jax.random.key(4), "step": 7}
attempt("leaf", save_checkpoint, folder / "c", 1, tree | ({"rows": jnp.ones(2)} if last else {}))
attempt("one more", save_checkpoint, folder / "c", 1, tree | ({"more": 1.0} if last else {}))
attempt("step", save_checkpoint, folder / "c", here, tree)
attempt("written", save_checkpoint, "/dev/null/folder", 1, tree)
for backend in sys.argv[2:]:
    path = save_checkpoint(folder / backend, 5, tree | {"own": here}, backend=backend)
    step, found = load_checkpoint(folder / backend, like=tree | {"own": 0})
    assert (step, found["own"], found["step"]) == (5, 0, 7)
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(tree["key"])).all()
    assert found["rows"].sharding == tree["rows"].sharding
    np.testing.assert_array_equal(gather(found["rows"]), gather(tree["rows"]))
    np.testing.assert_array_equal(load_checkpoint(path.parent)[1]["rows"][:n], X)
    whole = load_checkpoint(path.parent, like=tree | {"own": 0, "rows": gather(tree["rows"])})[1]
    np.testing.assert_array_equal(whole["rows"], gather(tree["rows"]))
    attempt(f"{backend} like", load_checkpoint, folder / backend, like={"rows": X})
    print(f"{backend} file: {path.name}")
