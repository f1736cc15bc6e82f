"""Several processes: rows shared out, checkpoints, clusters on one machine."""

import os
from pathlib import Path

from kernax.distributed import local_cluster

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "fit_sharded.py"
# Compilation takes most of the time of a program: as for other tests, it is to take little.
QUICK = {"XLA_FLAGS": os.environ.get("XLA_FLAGS") or "--xla_backend_optimization_level=0"}


def run(processes, program, *arguments, **options):
    """A program in processes that take any warning as an error."""
    environment = QUICK | {"PYTHONWARNINGS": "error", "JAX_ENABLE_X64": "1"}
    environment |= options.pop("environment", {})
    options = {"timeout": 90.0, "environment": environment} | options
    return local_cluster(processes, PROGRAMS / program, *arguments, **options)


def lines(output):
    """What a program printed as ``name: value``."""
    pairs = (line.split(": ", 1) for line in output.splitlines() if ": " in line)
    return {pair[0]: pair[1] for pair in pairs}
