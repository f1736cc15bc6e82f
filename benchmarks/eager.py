"""What does an eager call ``kernel(x, y)`` cost, beside a bare ``jax.jit`` of the same formula?

The bare function takes the hyperparameters as arguments. Also counts what is compiled in 100
calls with new hyperparameter values.

    python benchmarks/eager.py [--rounds 300]
"""

import argparse

import jax
import jax.numpy as jnp

import kernax as kx
from protocol import check, medians, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    x, y = jnp.asarray([0.3, 1.0]), jnp.asarray([0.9, -0.5])

    @jax.jit
    def one(scale, x, y):
        return jnp.exp(-0.5 * jnp.sum(((x - y) / scale) ** 2))

    @jax.jit
    def five(values, x, y):
        s = jnp.sum((x - y) ** 2)
        return sum(jnp.exp(-0.5 * s / scale**2) * c for c, scale in values)

    scales = [0.5, 1.0, 1.5, 2.0, 2.5]
    small = kx.SEKernel(0.7)
    large = sum((c * kx.SEKernel(scale) for c, scale in enumerate(scales, 1)), start=0)
    scale = jnp.asarray(0.7)
    values = [(jnp.asarray(float(c)), jnp.asarray(s)) for c, s in enumerate(scales, 1)]
    rows = []
    for leaves, kernel, bare in (
        (1, small, lambda: one(scale, x, y)),
        (10, large, lambda: five(values, x, y)),
    ):
        check(kernel(x, y), bare())
        times = medians({"call": lambda k=kernel: k(x, y), "bare": bare}, options.rounds, calls=50)
        ratio = times["call"] / times["bare"]
        rows.append(
            {"leaves": leaves, "us": {k: 1e6 * t for k, t in times.items()}, "ratio": ratio}
        )
        print(
            f"{leaves:>2} hyperparameters: call {1e6 * times['call']:.1f} us, bare jit "
            f"{1e6 * times['bare']:.1f} us, ratio {ratio:.2f} (goal 2)"
        )

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    fresh = [small.replace(length_scale=0.1 + 0.01 * i) for i in range(100)]
    before = len(compiled)
    for kernel in fresh:
        kernel(x, y).block_until_ready()
    rows.append({"recalls": 100, "compilations": len(compiled) - before})
    print(f"100 recalls with new values: {len(compiled) - before} compilations (goal 0)")
    save("eager", rows)


if __name__ == "__main__":
    main()
