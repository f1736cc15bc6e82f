"""A Gaussian process from its kernel to its posterior: samples of functions, before and after data.

    mean        f* = m* + K*' K^-1 (y - m)
    covariance  C* = K** - K*' K^-1 K*

Both are checked against NumPy, the minus sign too: with a plus, observing would make us know
less. Samples are drawn from covariance matrices of close points, which are singular to working
precision, and need no special method.

    python examples/prior_to_posterior.py [--out FILE.png]
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax

jax.config.update("jax_enable_x64", True)


def exercise_in_the_plane(key: Any) -> Any:
    """Draws of N([0, 5], diag(1, 2)); returns them, and prints what their moments are."""
    mean, C = jnp.array([0.0, 5.0]), jnp.diag(jnp.array([1.0, 2.0]))
    draws = jax.random.multivariate_normal(key, mean, C, (20_000,))
    found, spread = np.mean(draws, axis=0), np.cov(draws.T)
    error = np.sqrt(np.diag(C) / len(draws))
    assert (np.abs(found - mean) < 5 * error).all()
    print(
        f"20,000 draws in the plane: mean {found.round(3)}, covariance {spread.round(3).tolist()}"
    )
    return draws


def prior(gp: Any, grid: Any, key: Any) -> Any:
    """Five functions of the prior, and a check of their covariance in standard errors."""
    K = np.asarray(gp.kernel.gram(grid))
    least = np.linalg.eigvalsh(K)[0]
    print(f"the covariance matrix of {len(grid)} points: least eigenvalue {least:.1e}, singular")
    draws = np.asarray(gp.sample(key, grid, (4000,)))
    assert np.isfinite(draws).all()
    # The variance of a product of two normal values with covariance K.
    error = np.sqrt((np.outer(np.diag(K), np.diag(K)) + K**2) / len(draws))
    worst = np.max(np.abs(draws.T @ draws / len(draws) - K) / error)
    print(f"4000 samples of the prior: covariance within {worst:.1f} standard errors of K")
    assert worst < 5
    return draws[:5]


def posterior(gp: Any, x: Any, y: Any, grid: Any, key: Any) -> Any:
    """The posterior, its samples, and the equations above in NumPy."""
    found = gp.condition(x, y)
    k, noise = gp.kernel, float(gp.noise_variance)
    K, cross = np.asarray(k.gram(x)) + noise * np.eye(len(x)), np.asarray(k.gram(x, grid))
    mean = cross.T @ np.linalg.solve(K, y)
    explained = cross.T @ np.linalg.solve(K, cross)
    covariance = np.asarray(k.gram(grid)) - explained
    np.testing.assert_allclose(found.mean(grid), mean, atol=1e-10)
    np.testing.assert_allclose(found.covariance(grid), covariance, atol=1e-10)
    before, after = np.trace(k.gram(grid)), np.trace(covariance)
    wrong = np.trace(k.gram(grid) + explained)
    print(f"mean variance on the grid: {before / len(grid):.3f} before the data, ", end="")
    print(f"{after / len(grid):.3f} after, {wrong / len(grid):.3f} with the wrong sign")
    assert after < before < wrong
    draws = np.asarray(found.sample(key, grid, (4000,)))
    error = np.sqrt(np.maximum(np.diag(covariance), 1e-12) / len(draws))
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * error + 1e-9).all()
    return found, draws[:5]


def exercise_more_data(gp: Any, x: Any, y: Any, grid: Any, key: Any) -> Any:
    """Data that arrive later, and functions that can be asked anywhere, also between the points."""
    early = gp.condition(x[:3], y[:3])
    late = early.update(x[3:], y[3:])
    np.testing.assert_allclose(late.mean(grid), gp.condition(x, y).mean(grid), atol=1e-9)
    paths = late.sample_paths(key, (5,))
    print(
        f"five functions of the posterior at 3.14: {np.asarray(paths([[3.14]])).ravel().round(2)}"
    )
    return paths


def exercise_hyperparameters(gp: Any, x: Any, y: Any) -> Any:
    """The length-scale and variance under which the observations are most likely."""
    fitted = kernax.fit(gp, x, y, fixed="noise_variance", restarts=4, progress=False)
    print(f"before: {float(gp.log_marginal_likelihood(x, y)):.3f}, fitted: {-fitted.loss:.3f}")
    print(fitted.summary())
    return fitted


def draw(gp: Any, plane: Any, functions: Any, found: Any, x: Any, y: Any, grid: Any) -> Any:
    import matplotlib.pyplot as plt

    before, after, paths = functions
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    axes[0, 0].hist2d(*np.asarray(plane).T, bins=60)
    axes[0, 0].set(title="Draws of N([0, 5], diag(1, 2))")
    lags = np.linspace(-5, 5, 200)
    axes[0, 1].plot(lags, gp.kernel.gram(lags, [0.0])[:, 0])
    axes[0, 1].set(title="Covariance with the point 0", xlabel="x")
    image = axes[0, 2].imshow(gp.kernel.gram(grid), extent=(0, 10, 10, 0))
    figure.colorbar(image, ax=axes[0, 2])
    axes[0, 2].set(title="Covariance matrix")
    axes[1, 0].plot(grid, before.T)
    axes[1, 0].set(title="Functions of the prior", xlabel="x")
    mean, deviation = found.mean(grid), np.sqrt(found.variance(grid))
    for panel, lines, title in (
        (axes[1, 1], after, "Functions of the posterior"),
        (axes[1, 2], np.asarray(paths(grid)), "Functions that can be asked anywhere"),
    ):
        panel.fill_between(grid, mean - 2 * deviation, mean + 2 * deviation, alpha=0.2)
        panel.plot(grid, lines.T, lw=0.9)
        panel.plot(grid, mean, "k--", label="mean, and two standard deviations")
        panel.plot(x, y, "ko")
        panel.set(title=title, xlabel="x")
        panel.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="From the prior samples to the posterior.")
    parser.add_argument("--out", type=Path, help="draw it all into this file")
    options = parser.parse_args()
    keys = jax.random.split(jax.random.key(11), 7)
    gp = kernax.GaussianProcess(1.0 * kernax.SEKernel(length_scale=1.0), noise_variance=1e-4)
    grid = np.linspace(0, 10, 100)
    x = np.asarray(jax.random.uniform(keys[0], (5,), minval=0.5, maxval=9.0))
    y = np.asarray(jax.random.normal(keys[1], (5,)))
    plane = exercise_in_the_plane(keys[2])
    before = prior(gp, grid, keys[3])
    found, after = posterior(gp, x, y, grid, keys[4])
    paths = exercise_more_data(gp, x, y, grid, keys[5])
    exercise_hyperparameters(gp, x, y)
    if options.out:
        figure = draw(gp, plane, (before, after, paths), found, x, y, grid)
        figure.savefig(options.out)
        print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
