"""A rate from counts over unequal bins: a count belongs to its whole bin, not to the centre.

Cars past a counter in a day: expected in a bin is the integral of the rate over it, so that is what
is observed, with the expected count as noise variance (a Poisson count, taken as Gaussian). The
usual short cut takes count / width as a value at the bin's centre, and flattens every peak that a
wide bin covers. Both get the same counts, kernel, fit and estimate of the noise. Neither knows
that a rate is positive: where little was counted, bands reach below 0.

    python examples/binned_counts.py [--out FILE.png]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.integrate import quad

import kernax
from kernax import Identity, Integral

jax.config.update("jax_enable_x64", True)

EDGES = np.array([0.0, 4, 6, 7, 10, 11, 12, 14, 15, 16, 19, 20, 21, 24])  # hours
LOWER, UPPER = EDGES[:-1], EDGES[1:]
WIDTH, CENTRE = UPPER - LOWER, 0.5 * (LOWER + UPPER)
GRID = np.linspace(0.0, 24.0, 121)
RUSH = 7.5, 9.5  # an interval that is no union of bins
ASKED = Integral([*LOWER, RUSH[0]], [*UPPER, RUSH[1]])  # the bins, then the interval
ROWS = np.zeros(len(WIDTH) + 1)  # a row for each; where it is does not matter
DAYS, ROUNDS = 10, 2


def rate(t: Any) -> Any:
    """Cars per hour at t, with peaks at 8:18 and 17:12."""
    morning, evening = ((t - 8.3) / 1.3) ** 2, ((t - 17.2) / 1.6) ** 2
    return 40 + 260 * np.exp(-0.5 * morning) + 200 * np.exp(-0.5 * evening)


def integral(lower: float, upper: float) -> float:
    return float(quad(rate, lower, upper)[0])


Blocks = Callable[[Any, Any], list[Any]]  # of the counts and their variances


def whole_bins(counts: Any, variance: Any) -> list[Any]:
    return [(Integral(LOWER, UPPER), CENTRE, counts, variance)]


def centres(counts: Any, variance: Any) -> list[Any]:
    return [(Identity(), CENTRE, counts / WIDTH, variance / WIDTH**2)]


def estimated(counts: Any, blocks: Blocks) -> Any:
    """The posterior of the rate: amplitude and length-scale fitted, noise of smoothed counts."""
    level = counts.sum() / WIDTH.sum()
    kernel = level**2 * kernax.SEKernel(length_scale=2.0)
    gp = kernax.GaussianProcess(kernel, noise_variance=0.0)
    variance = counts + 1.0
    for _ in range(ROUNDS):
        given = blocks(counts, variance)
        found = kernax.fit(gp, given, fixed="noise_variance", progress=False)
        posterior = found.gp.condition(given)
        smoothed = posterior.mean(ROWS, operator=ASKED)[:-1]
        variance = np.maximum(np.asarray(smoothed), 1.0)
    return posterior


def judged(posterior: Any) -> tuple[float, ...]:
    """Squared error and coverage of the rate; error of a total, also in standard deviations."""
    error = np.asarray(posterior.mean(GRID)) - rate(GRID)
    inside = np.abs(error) <= 1.96 * np.sqrt(posterior.variance(GRID))
    mean, deviation = total(posterior)
    off = mean - integral(*RUSH)
    return float(np.mean(error**2)), float(np.mean(inside)), off**2, (off / deviation) ** 2


def total(posterior: Any) -> tuple[float, float]:
    """Mean and standard deviation of the number that is expected in the interval."""
    mean, variance = posterior.mean(ROWS, operator=ASKED), posterior.variance(ROWS, operator=ASKED)
    return float(mean[-1]), float(np.sqrt(variance[-1]))


def draw(counts: Any, found: dict[str, Any], out: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained", sharey=True)
    for panel, (name, posterior) in zip(axes, found.items(), strict=True):
        panel.bar(
            LOWER, counts / WIDTH, WIDTH, align="edge", color="0.87", edgecolor="0.65",
            label="count / width",
        )  # fmt: skip
        mean, deviation = np.asarray(posterior.mean(GRID)), np.sqrt(posterior.variance(GRID))
        panel.fill_between(
            GRID, mean - 2 * deviation, mean + 2 * deviation, color="C0", alpha=0.3, lw=0,
            label="two standard deviations",
        )  # fmt: skip
        panel.plot(GRID, mean, "C0", label="posterior mean")
        panel.plot(GRID, rate(GRID), "k--", lw=1.2, label="true rate")
        panel.set(title=f"Counts as {name}", xlabel="hour of the day")
        panel.set(xlim=(0, 24), xticks=range(0, 25, 3))
    axes[1].plot(CENTRE, counts / WIDTH, "C1o", label="what is taken as observed")
    axes[0].set(ylabel="cars per hour", ylim=(-30, 430))
    for panel in axes:
        panel.legend(loc="upper center", ncols=2, fontsize=9)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A rate from counts over unequal bins.")
    parser.add_argument("--out", type=Path, help="draw the first day into this file")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    expected = [integral(*bin) for bin in zip(LOWER, UPPER, strict=True)]
    days = rng.poisson(expected, size=(DAYS, len(expected))).astype(float)
    print(f"{len(WIDTH)} bins of {WIDTH.min():g} to {WIDTH.max():g} h, {DAYS} simulated days")
    print(f"{'counts as':<12}{'RMSE of rate':>14}{'in 95 % band':>14}{'RMSE of total':>15}", end="")
    print(f"{'/ its sd':>10}")
    ways: dict[str, Blocks] = {"integrals": whole_bins, "values": centres}
    first, table = {}, {}
    for name, blocks in ways.items():
        posteriors = [estimated(counts, blocks) for counts in days]
        first[name] = posteriors[0]
        square, inside, off, scaled = np.mean([judged(p) for p in posteriors], axis=0)
        table[name] = rmse, _, error, _ = np.sqrt(square), inside, np.sqrt(off), np.sqrt(scaled)
        print(f"{name:<12}{rmse:>14.1f}{inside:>14.0%}{error:>15.1f}{np.sqrt(scaled):>10.1f}")
    totals = {name: total(posterior) for name, posterior in first.items()}
    cells = (f"by {name} {mean:.0f} +- {sd:.0f}" for name, (mean, sd) in totals.items())
    print(f"first day, cars from {RUSH[0]} to {RUSH[1]} h: {'; '.join(cells)}; ", end="")
    print(f"in truth {integral(*RUSH):.0f}")
    ours, short_cut = table["integrals"], table["values"]
    assert ours[0] < 0.75 * short_cut[0]
    assert ours[1] > 0.93 > short_cut[1]
    assert ours[2] < 0.75 * short_cut[2]
    if options.out:
        draw(days[0], first, options.out)


if __name__ == "__main__":
    main()
