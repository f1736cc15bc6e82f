"""What gradients are worth: a surface from values and slopes, or from three times as many values.

A value with its gradient in the plane is three numbers, and n of them make a matrix of the order of
3n values: the same cost to a Gaussian process. Where a run of a simulator is what costs, and the
gradient comes along with it, the rival is n values. The surfaces are drawn from the process that is
then conditioned on them, so that its bands must hold what they say they hold. Printed for each
number of points: the root mean square error on a grid, and the share of it in the 95 % band.

For as many runs gradients always win. For as many numbers they win where the surface is smooth,
slopes are as precise as values, and points are close; else values at more places tell more.

    python examples/values_and_gradients.py [--out FILE.png]
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kernax
from kernax import Gradient, Identity

jax.config.update("jax_enable_x64", True)

SIZES, SURFACES, FEATURES = (8, 20, 50), 12, 4096
WAYS = {"n values": "C7o-", "n values and gradients": "C0s-", "3n values": "C1^-"}
SIDE = np.linspace(0.0, 1.0, 21)
GRID = np.stack([side.ravel() for side in np.meshgrid(SIDE, SIDE)], axis=1)


class Case(NamedTuple):
    kernel: kernax.AbstractKernel  # of variance 1; its slopes have deviations of 4 to 5
    noise: float  # standard deviation of a value
    slope_noise: float


SMOOTH, ROUGH = kernax.SEKernel(0.25), kernax.Matern52Kernel(0.25)
CASES = {
    "smooth, all precise": Case(SMOOTH, 0.01, 0.04),
    "smooth, all noisy": Case(SMOOTH, 0.1, 0.4),
    "smooth, noisy slopes": Case(SMOOTH, 0.01, 1.2),
    "rough, all precise": Case(ROUGH, 0.01, 0.04),
}


class Surfaces(NamedTuple):
    """Several, one a row."""

    X: Any  # sequences of points, of which designs are the first ones
    y: Any
    slopes: Any
    truth: Any  # on the grid


def drawn(case: Case) -> Surfaces:
    """Functions of the prior, phi(x) w with random features phi, observed with noise."""
    rng = np.random.default_rng(0)
    phi = kernax.random_features(jax.random.key(0), case.kernel, 2, FEATURES)
    # Roberts' sequence from a random start: its first n points fill the square evenly, for each n.
    steps = np.outer(np.arange(3 * max(SIZES)), 1.32471795724474602596 ** -np.array([1.0, 2.0]))
    X = (rng.random((SURFACES, 1, 2)) + steps) % 1.0
    y, slopes, truth = _evaluated(phi, X, rng.normal(size=(SURFACES, FEATURES)))
    y = y + case.noise * rng.normal(size=y.shape)
    slopes = slopes + case.slope_noise * rng.normal(size=slopes.shape)
    return Surfaces(X, y, slopes, np.asarray(truth))


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0))
def _evaluated(phi: Any, X: Any, weights: Any) -> Any:
    height = lambda x: phi(x[None])[0] @ weights
    return phi(X) @ weights, jax.vmap(jax.grad(height))(X), phi(GRID) @ weights


@partial(jax.jit, static_argnames="gradients")
def posteriors(case: Case, surfaces: Surfaces, n: Any, gradients: bool) -> Any:
    """Means and variances on the grid, given the first n points of each surface."""
    gp = kernax.GaussianProcess(case.kernel, noise_variance=case.noise**2)

    @jax.vmap
    def one(X: Any, y: Any, slopes: Any) -> Any:
        # Rows of NaN are padding: one program serves every n.
        X = jnp.where(jnp.arange(len(X))[:, None] < n, X, jnp.nan)
        blocks = [(Identity(), X, y)]
        if gradients:
            blocks.append((Gradient(), X, slopes, case.slope_noise**2))
        posterior = gp.condition(blocks)
        return posterior.mean(GRID), posterior.variance(GRID)

    most = max(SIZES) if gradients else 3 * max(SIZES)
    return one(surfaces.X[:, :most], surfaces.y[:, :most], surfaces.slopes[:, :most])


def compare(case: Case, surfaces: Surfaces) -> tuple[Any, Any, Any]:
    """Errors (sizes, ways, surfaces, grid), their root mean squares, and shares in the band."""
    ways = ((1, False), (1, True), (3, False))  # as in WAYS
    found = [[posteriors(case, surfaces, times * n, own) for times, own in ways] for n in SIZES]
    means, variances = np.moveaxis(np.array(found), 2, 0)
    errors = means - surfaces.truth
    inside = np.abs(errors) <= 1.96 * np.sqrt(variances)
    return errors, np.sqrt(np.mean(errors**2, axis=(2, 3))), np.mean(inside, axis=(2, 3))


def conclude(rmse: dict[str, Any]) -> None:
    """Errors of values alone, as multiples of those of n values and gradients."""
    print("times the error of n values and gradients:")
    ratios = {name: found[:, [0, 2]] / found[:, [1]] for name, found in rmse.items()}
    for name, found in ratios.items():
        few, many = (", ".join(f"{ratio:.2f}" for ratio in column) for column in found.T)
        print(f"  {name:<22}n values {few}; 3n values {many}")
    assert all((found[:, 0] > 1.0).all() for found in ratios.values())
    sparse, dense = ([found[row, 1] > 1.0 for found in ratios.values()] for row in (0, -1))
    assert sparse == [False, False, False, False]
    assert dense == [True, True, False, False]


def draw(surfaces: Surfaces, errors: Any, rmse: dict[str, Any], out: Path) -> None:
    """The first surface and what each way misses of it; the errors of all cases."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    figure, axes = plt.subplots(2, 4, figsize=(15, 8.4), layout="constrained")
    style = {"origin": "lower", "extent": (0, 1, 0, 1), "interpolation": "bilinear"}
    middle, square = len(SIZES) // 2, (len(SIDE), len(SIDE))
    n, missed = SIZES[middle], np.abs(errors[middle, :, 0])
    image = axes[0, 0].imshow(surfaces.truth[0].reshape(square), **style)
    axes[0, 0].set(title="A smooth surface", ylabel="$x_2$")
    figure.colorbar(image, ax=axes[0, 0], location="bottom", label="height")
    for panel, way, error, count in zip(axes[0, 1:], WAYS, missed, (n, n, 3 * n), strict=True):
        shades = {"cmap": "magma", "norm": LogNorm(1e-3, 1)}
        image = panel.imshow(error.reshape(square), **style, **shades)
        panel.plot(*surfaces.X[0, :count].T, "co", mec="k", ms=6)
        panel.set(title=f"Error of {count} values{' and gradients' if 'and' in way else ''}")
    figure.colorbar(
        image, ax=axes[0, 1:], location="bottom", label="|error|", extend="both", shrink=0.6
    )
    for panel in axes[0]:
        panel.set(xlabel="$x_1$", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    for panel, (name, found) in zip(axes[1], rmse.items(), strict=True):
        for (way, mark), line in zip(WAYS.items(), found.T, strict=True):
            panel.loglog(SIZES, line, mark, label=way)
        panel.set(title=name.capitalize(), xlabel="n", xticks=SIZES, xticklabels=SIZES)
        panel.set(ylim=(0.005, 0.9))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    axes[1, 0].set(ylabel="root mean square error")
    axes[1, 3].legend(loc="lower left")
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Values and gradients against values alone.")
    parser.add_argument("--out", type=Path, help="draw a surface and the errors into this file")
    options = parser.parse_args()
    print(f"{'':<22}{'n':>4}" + "".join(f"{way:>25}" for way in WAYS))
    rmse, pictured = {}, None
    for name, case in CASES.items():
        surfaces = drawn(case)
        errors, rmse[name], inside = compare(case, surfaces)
        pictured = pictured or (surfaces, errors)
        for n, row, shares in zip(SIZES, rmse[name], inside, strict=True):
            cells = zip(row, shares, strict=True)
            print(f"{name:<22}{n:>4}" + "".join(f"{e:>17.4f} ({c:>4.0%})" for e, c in cells))
        assert (np.abs(inside - 0.95) < 0.07).all()
    conclude(rmse)
    if options.out:
        draw(*pictured, rmse, options.out)


if __name__ == "__main__":
    main()
