"""``kernax demo``: forecasting atmospheric CO2, the whole way from a table to a picture."""

import argparse
import importlib.resources
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import io, plot
from .._errors import MissingExtraError
from ..gp import ConstantMean, GaussianProcess, Posterior, fit
from ..kernels import AbstractKernel, PeriodicKernel, RationalQuadraticKernel, SEKernel
from ._commands import FORECAST, need_place, need_plotting, refuse_existing
from ._table import CALENDAR, forecast_cells, format_table, read_numbers, read_table

SPLIT = 1996.0


def mauna_loa_kernel() -> AbstractKernel:
    """Trend, decaying season, irregularities and short correlated noise.

    Rasmussen and Williams (2006), section 5.4.3, at the hyperparameters published with the george
    library, where the season is exp(-gamma sin^2(pi d)) with gamma = 2 / 1.3^2.
    """
    trend = 66.0**2 * SEKernel(67.0)
    season = 2.4**2 * SEKernel(90.0) * PeriodicKernel(length_scale=1.3, period=1.0)
    irregular = 0.66**2 * RationalQuadraticKernel(length_scale=1.2, alpha=0.78)
    short = 0.18**2 * SEKernel(1.6)
    return trend + season + irregular + short


def mauna_loa_priors(gp: GaussianProcess) -> dict[str, Any]:
    """Log-normal around the published values, 0.5 wide on each logarithm.

    Amplitudes and length-scales are taken squared, so that a length-scale itself gets 0.25.
    """
    try:
        from numpyro.distributions import LogNormal
    except ImportError as error:
        raise MissingExtraError("kernax demo", "numpyro", "mcmc") from error
    return {
        path: LogNormal(float(np.log(value)), 0.25 if path.endswith("length_scale") else 0.5)
        for path, value in gp.hyperparameters.items()
        if not path.startswith("mean") and not path.endswith("period")
    }


class CompileClock:
    """Seconds that this process has spent compiling."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in (
            "/jax/core/compile/jaxpr_to_mlir_module_duration",
            "/jax/core/compile/backend_compile_duration",
        ):
            self.seconds += duration_secs


def run_demo(options: argparse.Namespace) -> int:
    """Fit the Mauna Loa kernel twice, compare three forecasts, write a table and a picture."""
    out = Path(options.out)
    csv_path, png_path = out / "forecast.csv", out / "forecast.png"
    refuse_existing([str(csv_path), str(png_path)], options.force)
    need_place(out.resolve())
    need_plotting()
    source = importlib.resources.files("kernax") / "data" / "mauna_loa_co2_weekly.csv"
    with importlib.resources.as_file(source) as path:
        table = read_table(str(path))
    t = read_numbers(table, "date", dates=True, drop_bad=False).values
    y = read_numbers(table, "co2", dates=False, drop_bad=False).values
    known = np.isfinite(y)
    train = np.flatnonzero(known & (t < SPLIT))[::4]
    test = np.flatnonzero(known & (t >= SPLIT))
    print(f"weekly CO2 at Mauna Loa: {known.sum()} values, time as {CALENDAR}")
    print(f"training on every 4th week before {SPLIT:.0f}: {len(train)} points; ", end="")
    print(f"held out: the {len(test)} weeks from {SPLIT:.0f} on\n")

    clock = CompileClock()
    published = GaussianProcess(mauna_loa_kernel(), 0.19**2, ConstantMean(float(y[train].mean())))
    priors = mauna_loa_priors(published)
    rows, posterior = [], None
    for name, distributions in (
        ("published values", None),
        ("maximum likelihood", {}),
        ("with priors", priors),
    ):
        posterior, row = _forecast(
            name, published, distributions, (t, y, train, test), clock, not options.quiet
        )
        rows.append(row)
    assert posterior is not None
    _print_table(rows)

    weeks = np.flatnonzero(t >= SPLIT)
    mean = np.asarray(posterior.mean(t[weeks]))
    std = np.sqrt(np.asarray(posterior.variance(t[weeks], observation=True)))
    text = format_table(
        ["date", "co2", *FORECAST],
        [
            [table.column("date")[i] for i in weeks],
            [table.column("co2")[i] for i in weeks],
            *forecast_cells(mean, std),
        ],
    )
    fig = plot.forecast_figure(
        posterior,
        (t[train], y[train]),
        (t[test], y[test]),
        t,
        labels=("year", "CO2 (ppm)"),
        title="CO2 at Mauna Loa, fitted with priors",
    )
    picture = plot.as_png(fig)
    # Written last, so that an error leaves nothing behind.
    out.mkdir(parents=True, exist_ok=True)
    io.write_text(csv_path, text)
    io.write_bytes(png_path, picture)
    print(f"\nforecast with priors: {csv_path}\npicture: {png_path}")
    return 0


def _forecast(
    name: str,
    gp: GaussianProcess,
    priors: dict[str, Any] | None,
    data: tuple[Any, Any, Any, Any],
    clock: CompileClock,
    progress: bool,
) -> tuple[Posterior, tuple[str, float, float, float, float, float]]:
    """Fit unless ``priors`` is None, forecast the held-out weeks, and measure."""
    t, y, train, test = data
    began, compiled = time.perf_counter(), clock.seconds
    if priors is not None:
        result = fit(
            gp,
            t[train],
            y[train],
            priors=priors,
            fixed=("mean", "period"),
            progress=progress and sys.stderr.isatty(),
        )
        if result.interrupted:
            raise KeyboardInterrupt
        gp = result.gp
    posterior = gp.condition(t[train], y[train])
    error = y[test] - np.asarray(posterior.mean(t[test]))
    std = np.sqrt(np.asarray(posterior.variance(t[test], observation=True)))
    coverage = float(np.mean(np.abs(error) <= 1.959964 * std))
    seconds = time.perf_counter() - began
    lml = float(posterior.log_marginal_likelihood)
    rmse = float(np.sqrt(np.mean(error**2)))
    return posterior, (name, lml, rmse, coverage, seconds, clock.seconds - compiled)


def _print_table(rows: list[tuple[str, float, float, float, float, float]]) -> None:
    print(
        f"{'':<20} {'log marginal':>14} {'RMSE':>8} {'95 % interval':>14} {'':>8} {'of which':>10}"
    )
    print(
        f"{'hyperparameters':<20} {'likelihood':>14} {'(ppm)':>8} {'covers':>14} "
        f"{'seconds':>8} {'compiling':>10}"
    )
    for name, lml, rmse, coverage, seconds, compiling in rows:
        print(
            f"{name:<20} {lml:>14.6f} {rmse:>8.3f} {coverage:>14.3f} {seconds:>8.1f} "
            f"{compiling:>10.1f}"
        )
