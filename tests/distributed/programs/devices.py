"""One process with two devices: rows and checkpoints."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
assert jax.device_count() == 2
mesh, rng = row_mesh(), np.random.default_rng(0)
X, y, index = rng.normal(size=(7, 2)), rng.normal(size=7), np.arange(7, dtype=np.int32)

for share in (shard_rows, local_rows):
    shared, values = share(mesh, X, y)
    assert shared.shape == (8, 2)
    assert values.shape == (8,)
    assert shared.sharding == NamedSharding(mesh, PartitionSpec("rows"))
    assert [part.data.shape for part in shared.addressable_shards] == [(4, 2)] * 2
    np.testing.assert_array_equal(gather(shared)[:7], X)
    assert np.isnan(gather(shared)[7]).all()
    np.testing.assert_array_equal(gather(share(mesh, X, fill=0.0))[7], 0.0)
    assert gather(share(mesh, y > -9))[-2:].tolist() == [True, False]
    assert share(mesh, index[:6]).dtype == np.int32
    assert gather(share(mesh, index, fill=-1.0))[7] == -1
    assert share(mesh, [1.0, 2.0]).dtype == np.float64

# Of two axes one has the rows.
square = Mesh(np.asarray(jax.devices()).reshape(1, 2), ("other", "own"))
assert shard_rows(square, X, axis="own").shape == (8, 2)
assert local_rows(square, X, axis="other").shape == (7, 2)

kernel, V = kernax.Matern32Kernel(0.7), rng.normal(size=(7, 3))
W = shard_rows(mesh, V, fill=0.0)
for ring in (False, True):
    operator = kernax.KernelOperator(kernel, shared, 0.1, mesh=mesh, ring=ring)
    found = gather(operator @ W)[:7]
    np.testing.assert_allclose(found, np.asarray(kernel.gram(X)) @ V + 0.1 * V, atol=1e-12)
# The same by tiles of one pair, with its derivatives: the shares of the tiles are added up.
square_of = lambda kernel, X, V: jnp.sum(jnp.square(kernel.gram(X) @ V))
dense = jax.grad(square_of, argnums=(0, 2))(kernel, X, jnp.asarray(V))
operator = kernax.KernelOperator(kernel, shared, 0.0, mesh=mesh, pairs=1)
of_tiles = lambda operator, V: jnp.sum(jnp.square(operator.product(V)))
tiles = jax.jit(jax.grad(of_tiles, argnums=(0, 1)))(operator, W)
np.testing.assert_allclose(tiles[0].kernel.length_scale, dense[0].length_scale, rtol=1e-12)
np.testing.assert_allclose(gather(tiles[1])[:7], dense[1], rtol=1e-12)

# A checkpoint keeps the whole of a sharded array, and gives it the sharding it is asked for.
tree = {"rows": shared, "mean": jnp.mean(values[:7]), "half": jnp.ones(3, jnp.bfloat16)}
for backend in sys.argv[2:]:
    folder = f"{sys.argv[1]}/{backend}"
    save_checkpoint(folder, 3, tree, backend=backend)
    step, found = load_checkpoint(folder, like=tree)
    assert step == 3
    for name, leaf in tree.items():
        np.testing.assert_array_equal(found[name], leaf)
        assert found[name].dtype == leaf.dtype
    assert found["rows"].sharding == shared.sharding
    plain = load_checkpoint(folder)[1]
    assert all(type(leaf) is np.ndarray for leaf in plain.values())
    np.testing.assert_array_equal(plain["rows"], gather(shared))
    whole = load_checkpoint(folder, like={**tree, "rows": gather(shared)})[1]
    assert type(whole["rows"]) is np.ndarray

with jax.enable_x64(False), warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert shard_rows(mesh, X).dtype == np.float32
print("warned:", *(warning.category.__name__ for warning in caught))
