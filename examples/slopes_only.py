"""A function from its slopes alone: what they tell of it, and what they cannot.

The slope of a road is measured at thirty places, with noise, and its height nowhere. Amplitude,
length-scale and noise come from the slopes by maximum likelihood. A constant has no slope: its
variance is that of the prior to the last digit, so that the height is known nowhere, and the
difference of any two heights is. One height, measured at one place, gives all the others.

    python examples/slopes_only.py [--out FILE.png]
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

import kernax
from kernax import Average, Derivative, Identity, Integral

jax.config.update("jax_enable_x64", True)

LEVEL = 5.0  # standard deviation of the constant, m
NOISE = 0.1  # standard deviation of a slope, m per km
END = 12.0  # km
GRID = np.linspace(0.0, END, 121)
ABOVE_MEAN = Identity() - Average(0.0, END)


def height(x: Any) -> Any:
    return 3.0 + 1.2 * np.sin(0.9 * x) + 0.8 * np.cos(1.7 * x + 0.4)


def slope(x: Any) -> Any:
    return 1.08 * np.cos(0.9 * x) - 1.36 * np.sin(1.7 * x + 0.4)


def fitted(x: Any, slopes: Any) -> Any:
    """The process that explains the slopes best; its constant has no part in that, and is fixed."""
    kernel = 1.0 * kernax.SEKernel(length_scale=1.0) + kernax.ConstantKernel(LEVEL**2)
    gp = kernax.GaussianProcess(kernel, noise_variance=0.1)
    blocks = [(Derivative(0), x, slopes)]
    found = kernax.fit(gp, blocks, fixed="kernel.right_kernel", progress=False)
    assert found.converged
    return found.gp


def observed(rng: Any) -> tuple[Any, Any]:
    """Thirty places, and the slopes measured there."""
    x = np.linspace(0.2, END - 0.2, 30) + rng.uniform(-0.15, 0.15, 30)
    return x, slope(x) + NOISE * rng.normal(size=30)


def conditioned(gp: Any, x: Any, slopes: Any) -> tuple[Any, Any]:
    """The posterior of slopes alone, and of slopes and the height at the start."""
    blocks = [(Derivative(0), x, slopes)]
    one = (Identity(), np.zeros(1), np.array([height(0.0)]), 1e-6)
    return gp.condition(blocks), gp.condition([*blocks, one])


def judge(rng: Any) -> None:
    """Errors, standard deviations and shares of the grid inside the 95 % band, over 20 surveys."""
    data = [observed(rng) for _ in range(20)]
    surveys = [conditioned(fitted(*found), *found) for found in data]
    mean_height = np.mean(height(np.linspace(0.0, END, 100_001)))
    rows = {
        "slope, m/km": (0, Derivative(0), slope(GRID)),
        "height, m": (0, Identity(), height(GRID)),
        "height above the mean, m": (0, ABOVE_MEAN, height(GRID) - mean_height),
        "height, one known, m": (1, Identity(), height(GRID)),
    }
    print(f"{'20 surveys':<26} {'RMSE':>8} {'posterior sd':>14} {'in 95 % band':>14}")
    for name, (which, operator, truth) in rows.items():
        found = [survey[which] for survey in surveys]
        error = np.stack([p.mean(GRID, operator=operator) for p in found]) - truth
        variance = np.stack([p.variance(GRID, operator=operator) for p in found])
        inside = np.mean(np.abs(error) <= 1.96 * np.sqrt(variance))
        rmse, deviation = np.sqrt(np.mean(error**2)), np.sqrt(np.mean(variance))
        print(f"{name:<26} {rmse:>8.3f} {deviation:>14.3f} {inside:>14.0%}")
        assert inside > 0.85
        assert (deviation > LEVEL) if name == "height, m" else (rmse < 0.25)


def report(posterior: Any, x: Any, slopes: Any) -> None:
    """What was fitted, what is left of the constant, and a rise of the road: an integral."""
    gp = posterior.gp
    print(gp.summary())
    deviation = float(np.sqrt(gp.noise_variance))
    print(f"noise of a slope: {deviation:.3f} m/km, simulated with {NOISE}")
    assert abs(deviation / NOISE - 1) < 0.4
    level = lambda value: gp.replace(**{"kernel.right_kernel.value": value})
    blocks = [(Derivative(0), x, slopes)]
    likelihood = lambda value: level(value).log_marginal_likelihood(blocks)
    derivative = float(jax.grad(likelihood)(LEVEL**2))
    print(f"d log likelihood / d constant: {derivative}, so it was not fitted")
    assert derivative == 0.0
    constant = posterior.variance(GRID, kernel=gp.kernel.right_kernel)
    np.testing.assert_allclose(constant, LEVEL**2, rtol=1e-12)
    print(f"variance of the constant: {LEVEL**2} before the slopes, {constant.min():.12g} after")
    rise, start = Integral(0.0, END) @ Derivative(0), np.zeros(1)
    mean = float(posterior.mean(start, operator=rise)[0])
    deviation = float(np.sqrt(posterior.variance(start, operator=rise)[0]))
    values = np.asarray(posterior.mean(GRID))
    np.testing.assert_allclose(mean, values[-1] - values[0], rtol=1e-6)
    true = height(END) - height(0.0)
    print(f"rise from end to end: {mean:.2f} +- {deviation:.2f} m, in truth {true:.2f}")
    assert abs(mean - true) < 3 * deviation


def draw(posterior: Any, pinned: Any, x: Any, slopes: Any, out: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")

    def band(panel: Any, mean: Any, variance: Any, truth: Any) -> None:
        mean, deviation = np.asarray(mean), np.sqrt(variance)
        panel.fill_between(
            GRID, mean - 2 * deviation, mean + 2 * deviation, color="C0", alpha=0.25, lw=0,
            label="two standard deviations",
        )  # fmt: skip
        panel.plot(GRID, mean, "C0", label="posterior mean")
        panel.plot(GRID, truth, "k--", lw=1.2, label="truth")

    of = {"operator": Derivative(0)}
    band(axes[0], posterior.mean(GRID, **of), posterior.variance(GRID, **of), slope(GRID))
    axes[0].plot(x, slopes, "C1o", ms=5, label="observed slopes")
    axes[0].set(title="The slope", ylabel="slope, m/km")
    band(axes[1], posterior.mean(GRID), posterior.variance(GRID), height(GRID))
    paths = np.asarray(posterior.sample(jax.random.key(1), GRID, (6,)))
    axes[1].plot(GRID, paths.T, "C2", lw=0.9, label=["draws of the posterior", *["_"] * 5])
    axes[1].set(title="The height, of slopes alone: no level", ylabel="height, m")
    band(axes[2], pinned.mean(GRID), pinned.variance(GRID), height(GRID))
    axes[2].plot(0.0, height(0.0), "C1s", ms=8, label="observed height")
    axes[2].set(title="The height, of slopes and one height", ylabel="height, m")
    for panel in axes:
        panel.set(xlabel="distance, km")
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + 0.42 * (high - low))
        panel.legend(loc="upper center", ncols=2, fontsize=9)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A function from its slopes alone.")
    parser.add_argument("--out", type=Path, help="draw the posteriors into this file")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, slopes = observed(rng)
    posterior, pinned = conditioned(fitted(x, slopes), x, slopes)
    report(posterior, x, slopes)
    judge(rng)
    if options.out:
        draw(posterior, pinned, x, slopes, options.out)


if __name__ == "__main__":
    main()
