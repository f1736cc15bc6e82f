"""What a kernel of Kernax can be asked for, each case checked against NumPy and timed.

A good kernel must be fast, take batches with hyperparameters of their own for each element, work
on padded points, run inside `jax.jit`, combine with others, carry its hyperparameters or be called
with them, and be easy to write. One row of the table per case: microseconds of an eager call, of
one elementwise `exp` of an array of the result's size, and their ratio.

    python examples/kernels_notebook.py [--small]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kernax

jax.config.update("jax_enable_x64", True)

LENGTH_SCALE = 0.3


class Case(NamedTuple):
    name: str
    call: Callable[[], jax.Array]
    expected: np.ndarray


def squared_exponential(X: Any, Y: Any, length_scale: Any = LENGTH_SCALE) -> np.ndarray:
    """The same in NumPy: (..., n, d) and (..., m, d) to (..., n, m); NaN where a row has one."""
    scaled = (np.asarray(X)[..., :, None, :] - np.asarray(Y)[..., None, :, :]) / length_scale
    return np.exp(-0.5 * np.sum(scaled**2, axis=-1))


class Data(NamedTuple):
    """Grids of m points, and b sets of them: regular, irregular, and with a fifth of the rows
    padded by a NaN."""

    one: dict[str, jax.Array]
    many: dict[str, jax.Array]


def grids(rng: np.random.Generator, b: int, m: int, d: int) -> Data:
    side = int(np.ceil(m ** (1 / d)))
    axes = np.meshgrid(*[np.linspace(0.0, 10.0 if d == 1 else 5.0, side)] * d, indexing="ij")
    regular = np.stack([axis.ravel() for axis in axes], axis=-1)[:m]
    irregular = rng.uniform(0.0, 10.0, size=(b, m, d))
    padded = irregular.copy()
    for points in padded:  # other rows in each set, and any of the coordinates
        rows = rng.choice(m, size=m // 5, replace=False)
        points[rows, rng.integers(d, size=len(rows))] = np.nan
    many = {
        "regular": np.broadcast_to(regular, irregular.shape),
        "irregular": irregular,
        "padded": padded,
    }
    one = {name: jnp.asarray(sets[0]) for name, sets in many.items()}
    return Data(one, {name: jnp.asarray(sets) for name, sets in many.items()})


def pairs(d: int, length_scales: np.ndarray) -> list[Case]:
    """One pair of points: a 1-D array is one point."""
    kernel = kernax.SEKernel(LENGTH_SCALE)
    near, far = jnp.zeros(1), jnp.ones(1)
    a, b = jnp.zeros(d), jnp.ones(d)
    first = kernax.ActiveDimsKernel(kernel, active_dims=[0])
    two = kernax.ActiveDimsKernel(kernel, active_dims=[0, d - 1])
    ard = kernax.ARDKernel(kernel, length_scales)
    at = lambda x, y, scale=LENGTH_SCALE: squared_exponential(x[None], y[None], scale)[0, 0]
    return [
        Case("a pair, 1-D", lambda: kernel(near, far), at(near, far)),
        Case(f"a pair, {d}-D", lambda: kernel(a, b), at(a, b)),
        Case(f"a pair, {d}-D, active dim 0", lambda: first(a, b), at(near, far)),
        Case(f"a pair, {d}-D, active dims 0 and {d - 1}", lambda: two(a, b), at(a[:2], b[:2])),
        Case(f"a pair, {d}-D, ARD", lambda: ard(a, b), at(a, b, length_scales)),
    ]


def matrices(data: dict[int, Data], length_scales: np.ndarray) -> list[Case]:
    """Gram matrices of one set: (m, d) to (m, m)."""
    kernel = kernax.SEKernel(LENGTH_SCALE)
    cases = [
        Case(
            f"Gram, {name} {d}-D grid",
            lambda X=X: kernel(X),
            squared_exponential(X, X),
        )
        for d, grid in data.items()
        for name, X in grid.one.items()
    ]
    d = max(data)
    X = data[d].one["irregular"]
    two = kernax.ActiveDimsKernel(kernel, active_dims=[0, d - 1])
    chosen = X[:, jnp.asarray([0, d - 1])]
    ard = kernax.ARDKernel(kernel, length_scales)
    # The length-scales belong to the inputs: any tree of kernels goes inside.
    inner = kernel + kernax.Matern32Kernel(1.0) * kernax.ActiveDimsKernel(kernel, [0])
    tree = kernax.ARDKernel(inner, length_scales)
    r = np.sqrt(-2 * np.log(squared_exponential(X, X, length_scales)))
    matern = (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
    within = squared_exponential(X[:, :1], X[:, :1], length_scales[:1])
    return [
        *cases,
        Case(
            f"Gram, {d}-D, active dims 0 and {d - 1}",
            lambda: two(X),
            squared_exponential(chosen, chosen),
        ),
        Case(f"Gram, {d}-D, ARD", lambda: ard(X), squared_exponential(X, X, length_scales)),
        Case(
            f"Gram, {d}-D, ARD over a sum and a product",
            lambda: tree(X),
            squared_exponential(X, X, length_scales) + matern * within,
        ),
    ]


def batches(data: dict[int, Data], length_scales: np.ndarray, b: int) -> list[Case]:
    """Gram matrices of a batch: (b, m, d), or one shared (m, d), to (b, m, m)."""
    kernel = kernax.SEKernel(LENGTH_SCALE)
    scales = np.linspace(0.2, 0.6, b)
    column = scales[:, None, None, None]
    shared = kernax.BatchKernel(kernel, b)
    distinct = kernax.BatchKernel(kernel, b, batch_in_axes=0).replace(length_scale=scales)
    alike = kernax.BatchKernel(kernel, b, batch_in_axes=0, batch_over_inputs=False)
    on_one_set = alike.replace(length_scale=scales)
    cases = []
    for label, batch, scale in (("shared", shared, LENGTH_SCALE), ("distinct", distinct, column)):
        cases += [
            Case(
                f"batch, {label} hyperparameters, {name} {d}-D grids",
                lambda batch=batch, X=X: batch(X),
                squared_exponential(X, X, scale),
            )
            for d, grid in data.items()
            for name, X in grid.many.items()
        ]
    cases += [
        Case(
            f"batch, distinct hyperparameters, one {name} {d}-D grid",
            lambda X=X: on_one_set(X),
            squared_exponential(X[None], X[None], column),
        )
        for d, grid in data.items()
        for name, X in grid.one.items()
        if name != "irregular"
    ]
    d = max(data)
    X = data[d].many["irregular"]
    dims = jnp.asarray([0, d - 1])
    ard = kernax.BatchKernel(kernax.ARDKernel(kernel, length_scales[:2]), b, batch_in_axes=0)
    each = length_scales[:2] * np.linspace(0.5, 2.0, b)[:, None]
    both = kernax.ActiveDimsKernel(ard.replace(length_scales=each), active_dims=[0, d - 1])
    return [
        *cases,
        Case(
            f"batch, distinct ARD on active dims 0 and {d - 1}, {d}-D",
            lambda: both(X),
            squared_exponential(X[..., dims], X[..., dims], each[:, None, None, :]),
        ),
    ]


class Laplace(kernax.AbstractKernel):
    """k(x, y) = exp(-|x - y|_1 / length_scale): a kernel of one's own is its formula."""

    length_scale: jax.Array = kernax.positive(1.0)

    def pairwise(self, x, y):
        return jnp.exp(-jnp.sum(jnp.abs(x - y)) / self.length_scale)


def forms(X: jax.Array) -> list[Case]:
    """The same kernel inside jit, as a pure function, with a mask, combined, and one's own."""
    kernel = kernax.SEKernel(LENGTH_SCALE)
    jitted = jax.jit(lambda kernel, X: kernel(X))
    pure = kernax.static(kernax.SEKernel)
    mask = jnp.arange(len(X)) % 5 > 0
    inside = np.asarray(mask)[:, None] & np.asarray(mask)
    own = 2.0 * Laplace(1.5) + kernax.WhiteNoiseKernel(0.1)
    distance = np.abs(np.asarray(X)[:, None] - np.asarray(X)).sum(axis=-1)
    K, d, eye = squared_exponential(X, X), X.shape[1], np.eye(len(X))
    return [
        Case(f"Gram, {d}-D, inside jit", lambda: jitted(kernel, X), K),
        Case(f"Gram, {d}-D, static", lambda: pure(X, length_scale=LENGTH_SCALE), K),
        Case(
            f"Gram, {d}-D, a mask, padded rows as the identity's",
            lambda: kernel.gram(X, mask=mask),
            np.where(inside, K, eye),
        ),
        Case(
            f"Gram, {d}-D, a class of one's own, scaled, with noise",
            lambda: own(X),
            2.0 * np.exp(-distance / 1.5) + 0.1 * eye,
        ),
    ]


def microseconds(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Medians of calls that were compiled before, the functions in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            found.append(1e6 * (time.perf_counter() - start))
    return [statistics.median(found) for found in times]


def measured(case: Case, rounds: int) -> tuple[float, float]:
    """Microseconds of the case and of one `exp`, after its numbers were found right."""
    K = np.asarray(case.call())
    assert K.shape == case.expected.shape, case.name
    np.testing.assert_allclose(K, case.expected, rtol=1e-10, atol=1e-14, err_msg=case.name)
    # NaN is padding; an exponential of it is no unit of time.
    ready = jnp.log(jnp.asarray(np.maximum(np.nan_to_num(case.expected, nan=1.0), 1e-300)))
    exp = jax.jit(jnp.exp)
    for _ in range(2):
        jax.block_until_ready((case.call(), exp(ready)))
    ours, floor = microseconds([case.call, lambda: exp(ready)], rounds)
    return ours, floor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="5 sets of 10 points, 3 repetitions")
    small = parser.parse_args().small
    b, m, n, rounds = (5, 10, 4, 3) if small else (250, 100, 4, 30)
    rng = np.random.default_rng(0)
    data = {d: grids(rng, b, m, d) for d in (1, n)}
    length_scales = rng.uniform(0.5, 2.0, size=n)
    cases = [
        *pairs(n, length_scales),
        *matrices(data, length_scales),
        *batches(data, length_scales, b),
        *forms(data[n].one["irregular"]),
    ]
    print(f"{b} sets of {m} points; {rounds} repetitions; every case agrees with NumPy")
    print(f"{'case':<58} {'ours, us':>10} {'exp, us':>10} {'ratio':>7}")
    for case in cases:
        ours, floor = measured(case, rounds)
        print(f"{case.name:<58} {ours:>10.1f} {floor:>10.1f} {ours / floor:>7.2f}")


if __name__ == "__main__":
    main()
