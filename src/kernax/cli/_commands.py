"""``kernax fit``, ``kernax predict`` and ``kernax kernels``."""

import argparse
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from .._errors import FormatError, InputError, MissingExtraError, ParameterError
from ..gp import ConstantMean, GaussianProcess, LinearMean, Posterior, ZeroMean, fit
from ..kernels._catalogue import CATALOGUE, formula, parameters
from ._expression import parse_kernel, parse_prior, short_names
from ._table import CALENDAR, Table, forecast_cells, format_table, read_numbers, read_table

INTERRUPTED = 130
FORECAST = ("mean", "std", "lower", "upper")


def refuse_existing(paths: list[str | None], force: bool) -> None:
    """Before any work: no file may be lost."""
    given = [Path(path).resolve() for path in paths if path]
    if len(set(given)) < len(given):
        raise ParameterError(f"two outputs go to {given[0]}. Fix: give each its own name.")
    for path in given:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file. Fix: choose another name.")
        if path.exists() and not force:
            raise InputError(f"{path} exists. Fix: choose another name, or pass --force.")


def need_folders(paths: list[str | None]) -> None:
    """Before any work: each output must have a folder to go to."""
    for path in filter(None, paths):
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            raise InputError(f"the folder of {path} does not exist. Fix: make it first.")
        if not os.access(folder, os.W_OK):
            raise InputError(f"the folder of {path} cannot be written to. Fix: choose another.")


def need_place(folder: Path) -> None:
    """Before any work: a folder that is there, or can be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there} is not a folder. Fix: choose another name.")
    if not os.access(there, os.W_OK):
        raise InputError(f"the folder {there} cannot be written to. Fix: choose another.")


def need_plotting() -> None:
    try:
        import matplotlib  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise MissingExtraError("--plot", "matplotlib", "plot") from error


def run_fit(options: argparse.Namespace) -> int:
    """Fit a Gaussian process to a table, print what was found, save the model."""
    refuse_existing([options.save], options.force)
    need_folders([options.save])
    kernel = parse_kernel(options.kernel)
    priors = _priors(options.prior)
    if options.output in options.input:
        raise ParameterError(
            f"column '{options.output}' is both --input and --output. Fix: name another column."
        )
    table = read_table(options.data)
    inputs, dates = _inputs(table, options.input, options.bad_rows == "drop")
    output = read_numbers(table, options.output, dates=False, drop_bad=options.bad_rows == "drop")
    X = np.stack([column.values for column in inputs], axis=1)
    y = output.values
    known = np.isfinite(X).all(axis=1) & np.isfinite(y)
    if not known.any():
        raise FormatError(f"{table.path} has no row with all of its values. Fix: fill in some.")
    _say_left_out(table, "dropped", [*inputs, output], known)
    X, y = X[known], y[known]
    gp = GaussianProcess(kernel, _noise(options.noise, y), _mean(options.mean, X, y))
    for name, is_date in zip(options.input, dates, strict=True):
        if is_date:
            print(f"column '{name}' holds dates, read as {CALENDAR}")
    result = fit(
        gp,
        X,
        y,
        priors=priors,
        fixed=tuple(options.fix),
        restarts=options.restarts,
        key=_key(options.seed),
        max_steps=options.max_steps,
        progress=not options.quiet and sys.stderr.isatty(),
    )
    posterior = result.gp.condition(X, y)
    print(f"{len(y)} points; kernel {result.gp.kernel!r}")
    print(f"log marginal likelihood {float(posterior.log_marginal_likelihood):.6f}")
    print(result.summary())
    if options.save:
        extra = {"input": options.input, "output": options.output, "dates": dates}
        io.save(options.save, posterior, extra)
        print(f"model written to {options.save}")
    return INTERRUPTED if result.interrupted else 0


def run_predict(options: argparse.Namespace) -> int:
    """Forecast the rows of a table with a saved model."""
    refuse_existing([options.out, options.plot], options.force)
    need_folders([options.out, options.plot])
    if options.plot:
        need_plotting()
    posterior, names, dates, output = _load(options.model)
    if options.plot and len(names) != 1:
        raise ParameterError(
            f"--plot needs one input column, the model has {len(names)}. Fix: leave out --plot."
        )
    table = read_table(options.data)
    drop = options.bad_rows == "drop"
    columns = [
        read_numbers(table, name, dates=is_date, drop_bad=drop)
        for name, is_date in zip(names, dates, strict=True)
    ]
    X = np.stack([column.values for column in columns], axis=1)
    _say_left_out(table, "no forecast for", columns, np.isfinite(X).all(axis=1))
    mean = np.asarray(posterior.mean(X)).ravel()
    std = np.sqrt(np.asarray(posterior.variance(X, observation=True)).ravel())
    header = [*names, *FORECAST]
    text = format_table(
        header, [*(table.plain(name) for name in names), *forecast_cells(mean, std)]
    )
    picture = None
    if options.plot:
        from .. import plot

        train = (np.asarray(posterior.data.X)[:, 0], np.asarray(posterior.data.y))
        labels = (f"{names[0]} (decimal years)" if dates[0] else names[0], output)
        real = np.isfinite(mean)
        fig = plot.prediction_figure(train, X[real, 0], mean[real], std[real], labels)
        picture = plot.as_png(fig)
    # Written last, so that an error leaves nothing behind.
    if options.out:
        io.write_text(options.out, text)
        print(f"{len(mean)} forecasts written to {options.out}")
    else:
        print(text, end="")
    if picture is not None:
        io.write_bytes(options.plot, picture)
        print(f"picture written to {options.plot}", file=sys.stderr)
    return 0


def run_kernels(options: argparse.Namespace) -> int:
    """The catalogue: how to write each kernel, its formula and what it is."""
    for cls in CATALOGUE:
        print(f"{short_names(cls)[0]}({', '.join(parameters(cls))})")
        print(f"    {formula(cls)}")
        print(f"    {(inspect.getdoc(cls) or '').splitlines()[0]}")
    print(
        "\nCombine with + - * and ** (a whole exponent), and with numbers: 2.0 * SE(1.5) + WN(0.1)"
    )
    return 0


def _priors(texts: list[str]) -> dict[str, Any]:
    priors: dict[str, Any] = {}
    for path, prior in map(parse_prior, texts):
        if path in priors:
            raise ParameterError(f"two priors for '{path}'. Fix: name each hyperparameter once.")
        priors[path] = prior
    return priors


def _load(path: str) -> tuple[Posterior, list[str], list[bool], str]:
    """The model, the names of its input columns, which of them hold dates, its output column."""
    posterior, extra = io.load_with_extra(path)
    names, dates, output = (extra.get(key) for key in ("input", "dates", "output"))
    whole = isinstance(posterior, Posterior) and isinstance(output, str)
    for values, kind in ((names, str), (dates, bool)):
        whole = whole and isinstance(values, list) and len(values) == posterior.data.X.shape[1]
        whole = whole and all(isinstance(value, kind) for value in values or ())
    if not whole:
        raise FormatError(
            f"{path} does not hold a model written by `kernax fit --save`. Fix: fit and save one."
        )
    return posterior, list(names or ()), list(dates or ()), str(output)


def _inputs(table: Table, names: list[str], drop: bool) -> tuple[list[Any], list[bool]]:
    if len(set(names)) < len(names):
        raise ParameterError(
            f"--input names a column twice: {', '.join(names)}. Fix: name each column once."
        )
    taken = sorted(set(names) & set(FORECAST))
    if taken:
        raise ParameterError(
            f"the input column '{taken[0]}' has the name of a forecast column "
            f"({', '.join(FORECAST)}). Fix: rename it in the file."
        )
    columns = [read_numbers(table, name, dates=None, drop_bad=drop) for name in names]
    return columns, [column.dates for column in columns]


def _say_left_out(table: Table, what: str, columns: list[Any], known: Any) -> None:
    bad = len({index for column in columns for index in column.bad})
    missing = int((~known).sum()) - bad
    for count, reason in ((bad, "cells that are not numbers"), (missing, "missing values")):
        if count:
            rows = "row" if count == 1 else "rows"
            print(f"{table.path}: {what} {count} {rows} with {reason}", file=sys.stderr)


def _noise(given: float | None, y: Any) -> float:
    return given if given is not None else max(0.1 * float(np.var(y)), 1e-12)


def _mean(kind: str, X: Any, y: Any) -> Any:
    if kind == "zero":
        return ZeroMean()
    if kind == "constant":
        return ConstantMean(float(np.mean(y)))
    design = np.column_stack([X, np.ones(len(X))])
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    return LinearMean(coefficients[:-1], coefficients[-1])


def _key(seed: int) -> Any:
    import jax

    return jax.random.key(seed)


def warn_in_one_line(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    """Warnings for a terminal: no source line."""
    print(f"kernax: warning: {message}", file=sys.stderr)
