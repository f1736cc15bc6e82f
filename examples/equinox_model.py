"""A kernel as a part of an Equinox model, trained with Optax beside a neural network's layer.

The model is a linear trend plus a smooth function with a kernel as its covariance, observed with
noise; the loss is minus the log density of the observations. A kernel is an Equinox module, so
that it sits in a model like any layer and its hyperparameters are leaves, in natural scale. An
optimiser needs free numbers: the model keeps the kernel's tree with the *logarithm* of each
hyperparameter in its place, and makes the kernel of it when it is used.

    python examples/equinox_model.py [--steps 150]
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

import kernax

jax.config.update("jax_enable_x64", True)

SLOPE, KERNEL, NOISE = 0.7, 1.5 * kernax.SEKernel(0.8), 0.05


class TrendAndKernel(eqx.Module):
    """y = trend(x) + f(x) + noise, with f of covariance ``kernel``."""

    trend: eqx.nn.Linear
    # Each leaf is the logarithm of what it stands for; every hyperparameter here is positive. A
    # `real` one, such as LinearKernel's offset, would be trained as it is.
    log_kernel: kernax.AbstractKernel
    log_noise: Array

    def __init__(self, kernel: kernax.AbstractKernel, noise: float, *, key: Array):
        self.trend = eqx.nn.Linear(1, 1, key=key)
        self.log_kernel = jax.tree.map(jnp.log, kernel)
        self.log_noise = jnp.log(jnp.asarray(noise, float))

    @property
    def kernel(self) -> kernax.AbstractKernel:
        return jax.tree.map(jnp.exp, self.log_kernel)

    @property
    def noise(self) -> Array:
        return jnp.exp(self.log_noise)

    def __call__(self, X: Array, y: Array) -> Array:
        """Minus the log density of observations y (n,) at X (n, 1), per observation."""
        covariance = self.kernel.gram(X) + self.noise * jnp.eye(len(X))
        mean = jax.vmap(self.trend)(X)[:, 0]
        return -kernax.mvn_log_density(y, mean, covariance) / len(y)


def observations(key: Array, n: int = 200) -> tuple[Array, Array]:
    """A draw from the model with the true values."""
    place, draw = jax.random.split(key)
    X = jnp.sort(jax.random.uniform(place, (n, 1), maxval=30.0), axis=0)
    truth = kernax.GaussianProcess(KERNEL, NOISE)
    return X, SLOPE * X[:, 0] + truth.sample(draw, X, observation=True)


def train(model: TrendAndKernel, X: Array, y: Array, steps: int) -> TrendAndKernel:
    optimiser = optax.adam(0.05)
    state = optimiser.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        loss, slopes = eqx.filter_value_and_grad(lambda model: model(X, y))(model)
        updates, state = optimiser.update(slopes, state)
        return loss, eqx.apply_updates(model, updates), state

    for number in range(steps + 1):
        loss, model_after, state = step(model, state)
        if number % (steps // 5) == 0:
            print(f"step {number:>3}: loss {loss:.4f}")
        model = model_after
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150)
    steps = parser.parse_args().steps
    X, y = observations(jax.random.key(3))
    model = TrendAndKernel(0.5 * kernax.SEKernel(2.0), 0.5, key=jax.random.key(0))
    model = train(model, X, y, steps)

    fitted, true = model.kernel.hyperparameters, KERNEL.hyperparameters
    rows = [(path, true[path], fitted[path]) for path in true]
    rows += [("noise", NOISE, model.noise), ("slope", SLOPE, model.trend.weight[0, 0])]
    print(f"{'':<26}{'true':>8}{'fitted':>8}")
    for name, wanted, found in rows:
        print(f"{name:<26}{wanted:>8.3f}{found:>8.3f}")

    # The trained kernel is one like any other: in a Gaussian process, in a file, in a composite.
    mean = kernax.LinearMean(model.trend.weight[0], model.trend.bias[0])
    process = kernax.GaussianProcess(model.kernel, model.noise, mean)
    posterior = process.condition(X[::2], y[::2])
    error = jnp.sqrt(jnp.mean((posterior.mean(X[1::2]) - y[1::2]) ** 2))
    print(f"error at the other half of the points: {error:.3f}, noise {model.noise**0.5:.3f}")


if __name__ == "__main__":
    main()
