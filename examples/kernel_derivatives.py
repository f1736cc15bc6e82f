"""The derivatives of a kernel: which is the covariance of what, and which sign belongs to it.

For k(x, y) = exp(-g |x - y|^2), which is `SEKernel` of length-scale 1 / sqrt(2 g), and d = x - y:

    K_gf = dk/dx_j           = -2 g d_j k                          slopes with values
    K_fg = dk/dy_j           = +2 g d_j k                          values with slopes
           d2k/dx_j dx_l     = (4 g^2 d_j d_l - 2 g delta_jl) k    no covariance: twice in x
    K_gg = d2k/dx_j dy_l     = (2 g delta_jl - 4 g^2 d_j d_l) k    slopes with slopes

It is easy to take the third, which is what `jax.hessian` gives of one argument, for the fourth, and
to lose the delta that the product rule leaves where j = l. Each is checked against formulas in
NumPy, scikit-learn, JAX and differences, and each mistake against what a covariance must be.

    python examples/kernel_derivatives.py [--out FILE.png]
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax
from kernax import Derivative, Gradient, Identity

try:
    from sklearn.metrics.pairwise import rbf_kernel
except ImportError as error:
    raise kernax.MissingExtraError("this example", "scikit-learn", "bench") from error

jax.config.update("jax_enable_x64", True)

GAMMA, PICTURED = 1.0, 0.3


def se(gamma: float) -> Any:
    return kernax.SEKernel(length_scale=(2 * gamma) ** -0.5)


def pair(x: Any, y: Any) -> Any:
    """The same kernel of two points, for JAX to differentiate."""
    return jnp.exp(-GAMMA * jnp.sum((x - y) ** 2))


def data(n: int, d: int, rng: Any, *, input_noise: float = 0.0, noise: float = 0.1) -> Any:
    """Standardised observations on a line: of a wave, and for d = 2 of a wave and a growth."""
    X = np.linspace([-10.0, -5.0][:d], [10.0, 2.0][:d], n)
    y = np.sin(np.pi / 1.6 * np.cos(5 + 0.5 * X[:, 0])) + noise * rng.normal(size=n)
    y += np.exp(X[:, 1]) if d == 2 else 0.0
    return X + input_noise * rng.normal(size=X.shape), (y - y.mean()) / y.std()


def off(name: str, found: Any, expected: Any, limit: float = 1e-12) -> None:
    """Prints the largest difference of two arrays of the same shape, and checks it."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, name
    worst = np.abs(found - expected).max()
    print(f"  {name:<62}{found.shape!s:>18}{worst:>9.0e}")
    assert worst < limit, name


def values(kernel: Any, X: Any) -> None:
    print("values: largest difference")
    off("k of one pair, scikit-learn", kernel.gram(X[:1], X[1:2]), rbf_kernel(X[:1], X[1:2], GAMMA))
    off("Gram matrix, scikit-learn", kernel.gram(X), rbf_kernel(X, gamma=GAMMA))
    K = np.asarray(kernel.gram(X))
    assert (np.diag(K) == 1.0).all()
    assert (K[~np.eye(len(X), dtype=bool)] < 1.0).all()


def timings(kernel: Any, rng: Any) -> None:
    """One call of Kernax, and of vmap of vmap with either point in the inner loop."""
    over_y = lambda x, Y: jax.vmap(lambda y: pair(x, y))(Y)
    over_x = lambda X, y: jax.vmap(lambda x: pair(x, y))(X)
    ways = {
        "Kernax": kernel.gram,
        "vmap, y inside": jax.jit(lambda X: jax.vmap(lambda x: over_y(x, X))(X)),
        "vmap, x inside": jax.jit(lambda X: jax.vmap(lambda y: over_x(X, y), out_axes=1)(X)),
    }
    for n in (10, 1000):
        X = jnp.asarray(data(n, 2, rng)[0])
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(12):
            for name, way in ways.items():
                start = time.perf_counter()
                jax.block_until_ready(way(X))
                times[name].append(1e6 * (time.perf_counter() - start))
        cells = (f"{name} {statistics.median(found[2:]):.0f}" for name, found in times.items())
        print(f"Gram matrix of {n} points, microseconds: {', '.join(cells)}")


def first(kernel: Any, line: Any, plane: Any) -> None:
    """One pair in one dimension and in two, then all pairs."""
    print("first derivatives: largest difference")
    sets = {
        "one pair, 1-D": (line[:1], line[1:2]),
        "one pair, 2-D": (plane[:1], plane[1:2]),
        "all pairs, 2-D": (plane, plane),
    }
    for name, (X, Y) in sets.items():
        d = X[:, None, :] - Y[None, :, :]
        K_gf = -2 * GAMMA * d * rbf_kernel(X, Y, GAMMA)[..., None]
        off(f"K_gf, gradient(argument=0), {name}", kernel.gradient(X, Y, argument=0), K_gf)
        off(f"K_fg, gradient(argument=1), {name}", kernel.gradient(X, Y, argument=1), -K_gf)
        rows = kernax.apply(kernel, right=Gradient()).gram(X, Y)
        off(f"K_fg, apply(k, right=Gradient()), {name}", rows, -K_gf.reshape(len(X), -1))
    # `all` says whether no entry is 0, so that comparing it compares no numbers, nor their sign.
    one, other = K_gf[:1, 1:], -K_gf[:1, 1:]
    blind, seeing = bool(one.all() == other.all()), np.allclose(one, other)
    print(f"  K_gf.all() == K_fg.all(): {blind}; np.allclose(K_gf, K_fg): {seeing}")
    assert blind
    assert not seeing


def second(kernel: Any, X: Any) -> None:
    """Twice in one point, and once in each.

    Where j != l the formula 4 g^2 d_j d_l k is the hessian, and minus K_gg; where j = l it is
    neither, for want of the delta.
    """
    print("second derivatives: largest difference")
    k = rbf_kernel(X, gamma=GAMMA)[..., None, None]
    d = X[:, None, :] - X[None, :, :]
    short, delta = 4 * GAMMA**2 * d[..., :, None] * d[..., None, :] * k, 2 * GAMMA * np.eye(2) * k
    H, K_gg = np.asarray(kernel.hessian(X, argument=0)), np.asarray(kernel.mixed_hessian(X))
    off("hessian in x, (4 g^2 d_j d_l - 2 g delta) k", H, short - delta)
    diagonal = 2 * GAMMA * (2 * GAMMA * d**2 - 1) * k[..., 0]
    off("  its diagonal, 2 g (2 g d_j^2 - 1) k", H.diagonal(axis1=2, axis2=3), diagonal)
    every = lambda function: jax.vmap(jax.vmap(function, (None, 0)), (0, None))(X, X)
    off("  jax.hessian in x", H, every(jax.hessian(pair)))
    off("  the hessian in y", H, kernel.hessian(X, argument=1))
    off("K_gg, (2 g delta - 4 g^2 d_j d_l) k", K_gg, delta - short)
    off("  jax.jacfwd in x of jax.jacfwd in y", K_gg, every(jax.jacfwd(jax.jacfwd(pair, 1), 0)))
    off("  minus the hessian", K_gg, -H)
    h, moved = 1e-4, lambda e: np.exp(-GAMMA * np.sum((d + e) ** 2, axis=-1))
    quotient = np.empty(K_gg.shape)
    for j, m in np.ndindex(2, 2):
        x, y = h * np.eye(2)[[j, m]]
        corners = moved(x - y) + moved(y - x) - moved(x + y) - moved(-x - y)
        quotient[..., j, m] = corners / (4 * h**2)
    off("  central differences", K_gg, quotient, 1e-6)
    for sign, name, right in (("", "hessian", H), ("", "K_gg", K_gg), ("-", "K_gg", K_gg)):
        wrong = np.abs((-short if sign else short) - right) > 1e-4
        count, same = wrong.sum(), wrong.diagonal(axis1=2, axis2=3).sum()
        print(f"  {sign}4 g^2 d_j d_l k for the {name}: {count} of {wrong.size} wrong, ", end="")
        print(f"{same} where j = l and {count - same} where j != l")
        assert same > 0
        assert (count > same) == (right is K_gg and not sign)


def joint(gamma: float, X: Any) -> tuple[Any, Any]:
    """Covariance of values and both slopes, in blocks; and with 4 g^2 d_j d_l k for K_gg."""
    kernel, parts = se(gamma), (Identity(), Derivative(0), Derivative(1))
    K = np.block([[np.asarray(kernax.apply(kernel, a, b).gram(X)) for b in parts] for a in parts])
    n, wrong = len(X), K.copy()
    d = (X[:, None, :] - X[None, :, :]).transpose(2, 0, 1)
    wrong[n:, n:] = np.block([[4 * gamma**2 * a * b * K[:n, :n] for b in d] for a in d])
    return K, wrong


def eigenvalues(X: Any) -> None:
    print("least eigenvalue of the covariance of values and slopes")
    for gamma in (GAMMA, PICTURED):
        least, negative = (np.linalg.eigvalsh(matrix)[0] for matrix in joint(gamma, X))
        print(f"  g = {gamma}: {least:.2g}; with 4 g^2 d_j d_l k for K_gg: {negative:.2g}")
        assert least > 0 > negative


def slopes(X: Any, y: Any) -> None:
    """What K_gf is for: slopes at points, given values; the wrong sign would turn them round."""
    gp = kernax.GaussianProcess(kernax.SEKernel(length_scale=1.5), noise_variance=0.05)
    posterior = gp.condition(X, y)
    found = posterior.mean(X, operator=Derivative(0))
    K_gf = np.asarray(gp.kernel.gradient(X, argument=0))[..., 0]
    K = np.asarray(gp.kernel.gram(X)) + 0.05 * np.eye(len(X))
    print(f"slopes of {len(X)} observations: largest difference")
    by_hand = K_gf @ np.linalg.solve(K, y)
    off("posterior mean of Derivative(0), K_gf (K + noise)^-1 y", found, by_hand)
    quotient = (posterior.mean(X + 1e-5) - posterior.mean(X - 1e-5)) / 2e-5
    off("  differences of the posterior mean", found, quotient, 1e-8)


def draw(K: Any, wrong: Any, out: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
    n, most = len(K) // 3, np.abs(K).max()
    names = ["$f$", "$\\partial_1 f$", "$\\partial_2 f$"]
    titles = f"Values and slopes, g = {PICTURED}", "With $4 g^2 d_j d_l k$ for $K_{gg}$"
    for panel, matrix, title in zip(axes[:2], (K, wrong), titles, strict=True):
        image = panel.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most)
        panel.set(title=title, xticks=n * np.arange(3) + (n - 1) / 2, xticklabels=names)
        panel.set(yticks=n * np.arange(3) + (n - 1) / 2, yticklabels=names)
        panel.tick_params(length=0)
        for edge in (n - 0.5, 2 * n - 0.5):
            panel.axhline(edge, color="k", lw=0.8)
            panel.axvline(edge, color="k", lw=0.8)
    for i, j in np.ndindex(3, 3):
        name = f"$K_{{{'fg'[i > 0]}{'fg'[j > 0]}}}$"
        axes[0].text((j + 1) * n - 0.8, i * n - 0.2, name, ha="right", va="top")
    figure.colorbar(image, ax=axes[:2], shrink=0.85, label="covariance")
    axes[2].plot(np.linalg.eigvalsh(K), "C0o-", ms=4, label="covariance")
    axes[2].plot(np.linalg.eigvalsh(wrong), "C3s-", ms=4, label="without sign and delta")
    axes[2].axhline(0.0, color="k", lw=0.8)
    axes[2].set(title="Their eigenvalues", xlabel="number, in order")
    axes[2].legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The derivatives of a kernel.")
    parser.add_argument("--out", type=Path, help="draw the covariances into this file")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    line, _ = data(10, 1, rng, input_noise=0.15)
    plane, _ = data(10, 2, rng)
    kernel = se(GAMMA)
    values(kernel, plane)
    timings(kernel, rng)
    first(kernel, line, plane)
    second(kernel, plane)
    eigenvalues(plane)
    slopes(*data(100, 1, rng))
    if options.out:
        draw(*joint(PICTURED, plane), options.out)


if __name__ == "__main__":
    main()
