"""A kernel fitted to rows that many processes share: python examples/cluster/fit_sharded.py

Alone, or as each process of a launcher (see README.md), with the same result. The length-scales
and the noise maximise the alignment of the covariance matrix K with the values,

    y' K y / (|y|^2 |K|),  |K|^2 = the mean of |K z|^2 over random z of +-1,

which takes products with K only. A run that was stopped goes on from its newest checkpoint.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kernax
from kernax.distributed import initialize, load_checkpoint, row_mesh, save_checkpoint, shard_rows

PROBES, EVERY = 8, 2


def data(n):
    """Rows that every process makes alike: the third column says nothing."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 2.0, size=(n, 3))
    return X, np.sin(3.0 * X[:, 0]) * np.cos(X[:, 1]) + 0.1 * rng.normal(size=n)


def kernel_of(params):
    return kernax.ARDKernel(kernax.SEKernel(), jnp.exp(params["log_scales"]))


def loss(params, X, y, mesh):
    """Minus the logarithm of the alignment, up to a constant."""
    noise = jnp.exp(params["log_noise"])
    operator = kernax.KernelOperator(kernel_of(params), X, noise, mesh=mesh)
    real = ~jnp.isnan(y)
    # Each row its own key: the same probes on any number of devices.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.arange(len(y)))
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (PROBES,), y.dtype))(keys)
    products = jnp.where(real[:, None], operator @ jnp.where(real[:, None], signs, 0.0), 0.0)
    values = jnp.where(real, y, 0.0)
    norm = jnp.sum(products**2) / PROBES
    return 0.5 * jnp.log(norm) - jnp.log(operator.bilinear(values, values))


def train(X, y, mesh, folder, steps):
    """The fitted parameters; from the newest checkpoint in the folder, if there is one."""
    adam = optax.adam(0.1)
    params = {"log_scales": jnp.zeros(X.shape[1]), "log_noise": jnp.log(0.5)}
    state = (params, adam.init(params))

    @jax.jit
    def update(state, X, y):
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, X, y, mesh)
        changes, moments = adam.update(gradient, moments)
        return value, (optax.apply_updates(params, changes), moments)

    begin, state = load_checkpoint(folder, like=state) or (0, state)
    if begin and jax.process_index() == 0:
        print(f"resumed at step {begin}")
    for step in range(begin + 1, steps + 1):
        value, state = update(state, X, y)
        if jax.process_index() == 0:
            print(f"step {step}: loss {float(value)!r}")
        if step % EVERY == 0 or step == steps:
            save_checkpoint(folder, step, state)
    return state[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="for checkpoints; all processes see it")
    parser.add_argument("--rows", type=int, default=2001)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    initialize()  # before anything else of JAX
    mesh = row_mesh()
    X, y = shard_rows(mesh, *data(given.rows))
    params = train(X, y, mesh, given.folder, given.steps)
    if jax.process_index() == 0:
        print(f"{jax.process_count()} processes, {mesh.size} devices, {len(X)} rows with padding")
        print("length-scales", *(f"{scale:.6f}" for scale in np.exp(params["log_scales"])))
        print(f"noise {np.exp(params['log_noise']):.6f}")


if __name__ == "__main__":
    main()
