"""A Gaussian process of rows that processes share: python examples/cluster/fit_sharded.py

Alone, or as each process of a launcher (see README.md), with the same result: the likelihood comes
from products with the covariance matrix, of which every device makes the rows that it has. A run
that was stopped goes on from its newest checkpoint.
"""

import argparse
import warnings

import jax
import numpy as np

import kernax
from kernax.distributed import initialize, row_mesh, shard_rows

EVERY = 2  # steps between checkpoints


def data(n):
    """Rows that every process makes alike: the third column says nothing."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 2.0, size=(n, 3))
    return X, np.sin(3.0 * X[:, 0]) * np.cos(X[:, 1]) + 0.1 * rng.normal(size=n)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="for checkpoints; all processes see it")
    parser.add_argument("--rows", type=int, default=2001)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    initialize()  # before anything else of JAX
    mesh = row_mesh()
    X, y = data(given.rows)
    X, y = shard_rows(mesh, X), shard_rows(mesh, y, fill=0.0)

    process = kernax.GaussianProcess(
        kernax.ARDKernel(kernax.SEKernel(), [1.0, 1.0, 1.0]),
        noise_variance=0.1,
        solver=kernax.Iterative(probes=16, rank=50),
    )
    show = jax.process_index() == 0
    step = -1
    while step < given.steps:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", kernax.ConvergenceWarning)  # it goes on
            result = kernax.fit(
                process, X, y, max_steps=EVERY, start="given", checkpoint=given.folder,
                progress=False,
            )  # fmt: skip
        if show and step < 0 and result.details["steps"] > EVERY:
            print(f"resumed at step {result.details['steps'] - EVERY}")
        step = result.details["steps"]
        if show:
            print(f"step {step}: loss {result.loss!r}", flush=True)
        if result.converged:
            break
    if show:
        print(f"{jax.process_count()} processes, {mesh.size} devices, {len(X)} rows with padding")
        print(result.gp.summary())


if __name__ == "__main__":
    main()
