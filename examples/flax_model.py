"""Kernels as Flax NNX modules: positive hyperparameters that train, matrices, and gradients.

A Gaussian kernel and Wendland's of compact support each become an `nnx.Module` that holds free
numbers as `nnx.Param`, the inverse softplus of the kernel's hyperparameters, and makes the kernel
of them when called. Each is trained with Optax on a draw of its own Gaussian process, by the log
density of the draw; then the slope of the fitted function comes from the kernel's gradient in its
first point. A Gaussian kernel written exp(-|x - y|^2 / s) has s = 2 length_scale^2.

    python examples/flax_model.py [--steps 100]
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import optax

import kernax

try:
    from flax import nnx
except ImportError as error:
    raise kernax.MissingExtraError("this example", "flax", "flax") from error

jax.config.update("jax_enable_x64", True)

NOISE = 0.01
KERNELS = {
    "Gaussian": 2.0 * kernax.SEKernel(0.6),
    "Wendland": 2.0 * kernax.WendlandKernel(smoothness=2, length_scale=2.5),
}


def inverse_softplus(value: jax.Array) -> jax.Array:
    return value + jnp.log(-jnp.expm1(-value))


class KernelModule(nnx.Module):
    """Any kernel whose hyperparameters are all positive, with a parameter for each of them."""

    def __init__(self, kernel: kernax.AbstractKernel):
        leaves, self.structure = jax.tree.flatten(kernel)
        self.free = nnx.List([nnx.Param(inverse_softplus(leaf)) for leaf in leaves])

    @property
    def kernel(self) -> kernax.AbstractKernel:
        """The kernel, its hyperparameters in natural scale."""
        return jax.tree.unflatten(self.structure, [nnx.softplus(free[...]) for free in self.free])

    def __call__(self, X: jax.Array, Y: jax.Array | None = None) -> jax.Array:
        """K(X, Y), (n, d) and (m, d) to (n, m); points (n,) have dimension one."""
        return self.kernel.gram(X, Y)

    def gradient(self, X: jax.Array, Y: jax.Array, argument: int) -> jax.Array:
        """The derivatives in x (``argument`` 0) or y (1), (n, m, d): no dimension is dropped."""
        return self.kernel.gradient(X, Y, argument)


class Interpolant(nnx.Module):
    """f(x) = sum_i k(x, x_i) w_i, the mean of f given noisy observations y."""

    def __init__(self, kernel: kernax.AbstractKernel, noise: float):
        self.covariance = KernelModule(kernel)
        self.log_noise = nnx.Param(jnp.log(jnp.asarray(noise, float)))

    def system(self, X: jax.Array) -> jax.Array:
        return self.covariance(X) + jnp.exp(self.log_noise[...]) * jnp.eye(len(X))

    def loss(self, X: jax.Array, y: jax.Array) -> jax.Array:
        return -kernax.mvn_log_density(y, jnp.zeros_like(y), self.system(X)) / len(y)

    def weights(self, X: jax.Array, y: jax.Array) -> jax.Array:
        return jax.scipy.linalg.solve(self.system(X), y, assume_a="pos")


@nnx.jit
def step(model: Interpolant, optimiser: Any, X: jax.Array, y: jax.Array) -> jax.Array:
    loss, slopes = nnx.value_and_grad(lambda model: model.loss(X, y))(model)
    optimiser.update(model, slopes)
    return loss


def fitted(truth: kernax.AbstractKernel, X: jax.Array, y: jax.Array, steps: int) -> Interpolant:
    start = jax.tree.map(lambda value: 0.5 * value, truth)
    model = Interpolant(start, 10 * NOISE)
    optimiser = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    for number in range(steps + 1):
        loss = step(model, optimiser, X, y)
        if number % (steps // 4) == 0:
            print(f"  step {number:>3}: loss {loss:.4f}")
    return model


def check_slopes(model: Interpolant, X: jax.Array, y: jax.Array) -> float:
    """The largest difference of the function's slope from that of JAX, over points in between."""
    weights, between = model.weights(X, y), (X[1:] + X[:-1]) / 2
    towards_x = model.covariance.gradient(between, X, argument=0)
    towards_y = model.covariance.gradient(between, X, argument=1)
    # These kernels depend on x - y alone.
    assert jnp.allclose(towards_x, -towards_y, atol=1e-12)
    slopes = jnp.einsum("nmd,m->nd", towards_x, weights)
    f = lambda x: jnp.vdot(model.covariance(x[None], X)[0], weights)
    return float(jnp.max(jnp.abs(slopes - jax.vmap(jax.grad(f))(between))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    X = jnp.linspace(0.0, 30.0, 150)[:, None]
    for name, truth in KERNELS.items():
        process = kernax.GaussianProcess(truth, NOISE)
        y = process.sample(jax.random.key(2), X, observation=True)
        print(f"{name}: true {truth}, noise {NOISE}")
        model = fitted(truth, X, y, steps)
        noise = jnp.exp(model.log_noise[...])
        print(f"  fitted {model.covariance.kernel:.3g}, noise {noise:.3g}")
        print(f"  slopes by the kernel's gradient: within {check_slopes(model, X, y):.1g} of JAX's")


if __name__ == "__main__":
    main()
