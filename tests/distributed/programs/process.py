"""A Gaussian process whose rows are shared out: its distance from the exact one."""

import numpy as np

import kernax
from kernax.distributed import gather, initialize, row_mesh, shard_rows

initialize()
rng = np.random.default_rng(0)
X, at = rng.normal(size=(101, 2)), rng.normal(size=(9, 2))
y = np.sin(2.0 * X[:, 0]) * np.cos(X[:, 1]) + 0.1 * rng.normal(size=101)
mesh = row_mesh()
rows, values = shard_rows(mesh, X), shard_rows(mesh, y, fill=0.0)
solver = kernax.Iterative(tolerance=1e-10, probes=8, rank=20, features=64, memory=0)
process = kernax.GaussianProcess(1.2 * kernax.Matern52Kernel([1.0, 1.0]), 0.02, solver=solver)
shared = process.condition(rows, values)
assert shared.plan.where[1] == ("rows" if mesh.size > 1 else None)
exact = kernax.GaussianProcess(process.kernel, 0.02, solver=kernax.Dense()).condition(X, y)
mean = gather(shared.mean(at))
print(f"mean: {np.abs(mean - np.asarray(exact.mean(at))).max()}")
print("values:", *mean)
