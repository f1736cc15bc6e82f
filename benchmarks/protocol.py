"""How every timing here is taken.

Functions are compiled and warmed up, their results checked to be finite and right, and then timed
in turn, round after round in one process, so that a slow moment of the machine hits all of them.
A figure is the median over the rounds; a comparison is the ratio of two medians of one run. Each
is a row: what was measured, its value, the goal that it should not exceed, the stretch beyond it,
the size and dtype; a script's rows are saved with the versions and the machine. Memory up to 32 MB
stays with the process, or such a result would be timed with the faults of its pages in one round
and without them in the next; a larger one has them in each.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Before any script builds a kernel: all figures are of 64 bits.
jax.config.update("jax_enable_x64", True)


def settle_memory() -> None:
    """What glibc comes to by itself: up to 32 MB from one heap that keeps it, more from `mmap`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold, most_arenas = -1, -3, -8
        mallopt(mmap_threshold, 32 * 2**20)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(most_arenas, 1)


settle_memory()

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("kernax-gp", "jax", "jaxlib", "equinox", "numpy", "tinygp", "scikit-learn", "gpflash")


def options(
    about: str | None, rounds: int, small: dict[str, int] | None = None, **sizes: int
) -> Any:
    """The command line of a script: ``--rounds``, an option for each size, and ``--small``."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"rounds": rounds, **sizes}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{default}, if not given")
    common_options(parser)
    parsed = parser.parse_args()
    for name, value in ({"rounds": 1} | (small or {})).items() if parsed.small else ():
        setattr(parsed, name, value)
    return parsed


def common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes and one round: that the script still runs"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="the folder for the figures: %(default)s"
    )


def medians(
    functions: dict[str, Callable[[], Any]], rounds: int, calls: int = 1
) -> dict[str, float]:
    """Seconds for one call of each function: median over ``rounds`` of the mean of ``calls``."""
    for name, function in functions.items():
        for _ in range(3):
            result = jax.block_until_ready(function())
        for leaf in jax.tree.leaves(result):
            assert np.isfinite(np.asarray(leaf)).all(), f"{name} is not finite"
    return timed(functions, rounds, calls)


def timed(functions: dict[str, Callable[[], Any]], rounds: int, calls: int = 1) -> dict[str, float]:
    """`medians` of functions that were warmed up and checked already, where NaN is padding."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(function())
            if number:  # the first round warms the caches that these functions share
                times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def check(result: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """A time is worth nothing where the number is wrong; NaN is right where it is expected."""
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def exp_floor(exponents: Any) -> Callable[[], Any]:
    """E, the unit of most goals: one elementwise ``jnp.exp`` of an array of the same size."""
    ready, exp = jnp.asarray(exponents), jax.jit(jnp.exp)
    return lambda: exp(ready)


def memory(function: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
    """Bytes of temporaries and of results of a function, as compiled."""
    found = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return found.temp_size_in_bytes, found.output_size_in_bytes


def row(
    what: str,
    value: float,
    goal: float | None = None,
    stretch: float | None = None,
    *,
    size: str,
    unit: str = "x",
    times: dict[str, float] | None = None,
) -> dict[str, Any]:
    """One figure; ``times``: the seconds it was made of."""
    beside = {name: round(1e3 * seconds, 6) for name, seconds in (times or {}).items()}
    return {
        "what": what,
        "value": float(value),
        "unit": unit,
        "goal": goal,
        "stretch": stretch,
        "met": None if goal is None else bool(value <= goal),
        "size": size,
        "dtype": str(jnp.zeros(()).dtype),
        "ms": beside,
    }


def report(script: str, rows: list[dict[str, Any]], parsed: Any) -> None:
    """Print the rows, and save them with what they were measured on."""
    for entry in rows:
        goal = "" if entry["goal"] is None else f" (goal {entry['goal']:g}, {verdict(entry)})"
        beside = ", ".join(f"{name} {ms:.4g} ms" for name, ms in entry["ms"].items())
        unit = "" if entry["unit"] == "x" else f" {entry['unit']}"
        print(f"{entry['what']}, {entry['size']}: {entry['value']:.3g}{unit}{goal}  {beside}")
    document = {"rounds": parsed.rounds, "machine": machine(), "rows": rows}
    (folder(parsed) / f"{script}.json").write_text(json.dumps(document, indent=1))


def folder(parsed: Any) -> Path:
    """Where the figures go; those of a trial never take the place of measured ones."""
    results: Path = parsed.results / "small" if parsed.small else parsed.results
    results.mkdir(parents=True, exist_ok=True)
    return results


def verdict(entry: dict[str, Any]) -> str:
    """Whether a figure met its goal, in words."""
    if entry["goal"] is None:
        return ""
    stretched = entry["stretch"] is not None and entry["value"] <= entry["stretch"]
    return "not met" if not entry["met"] else "met, and the stretch" if stretched else "met"


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    versions = {"commit": _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(cores),
        "devices": [str(device) for device in jax.devices()],
        "versions": versions,
    }


def _commit() -> str:
    """Of the source that is measured; changes that are not committed are marked."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # a copy without history
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
