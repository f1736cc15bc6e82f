"""Joining the other processes, where a launcher has started several."""

import inspect
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

import jax

from .._errors import ParameterError

# What `local_cluster` tells its processes; any other launcher may set the first three.
COORDINATOR, PROCESSES, PROCESS_ID = "KERNAX_COORDINATOR", "KERNAX_PROCESSES", "KERNAX_PROCESS_ID"
PARENT = "KERNAX_PARENT"

_SLURM = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
_LOOPBACK = ("localhost", "127.0.0.1")


def initialize(*, heartbeat: int | None = None) -> None:
    """Join the processes that a launcher started, before anything else is done with JAX.

    Launchers are `local_cluster`; Slurm, Open MPI and indexed Jobs of Kubernetes, which JAX knows;
    and whatever sets ``KERNAX_COORDINATOR`` (host:port of process 0), ``KERNAX_PROCESSES`` and
    ``KERNAX_PROCESS_ID``. Nothing is done for a process that runs alone, or where
    `jax.distributed.initialize` was called already.

    ``heartbeat``: seconds after which a silent process counts as dead, and all others end; 10 on
    one machine, 100 otherwise. From then on an exception that nobody catches ends its process at
    once, which would otherwise wait for the others.
    """
    if jax.distributed.is_initialized():
        return
    flags = _flags()
    if flags is None:
        return
    if heartbeat is not None:
        flags["heartbeat_timeout_seconds"] = heartbeat
    known = inspect.signature(jax.distributed.initialize).parameters
    # JAX 0.7 has no limit for the shutdown.
    jax.distributed.initialize(**{name: v for name, v in flags.items() if name in known})
    sys.excepthook = _end_at_once
    if PARENT in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _flags() -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize`; None for a process that runs alone."""
    environment = os.environ
    if COORDINATOR in environment:
        return _own_flags()
    if all(f"SLURM_{name}" in environment for name in _SLURM):
        return {} if int(environment["SLURM_NTASKS"]) > 1 else None
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        # From release 5 on, Open MPI does not tell the address that JAX looks for.
        told = "OMPI_MCA_orte_hnp_uri" in environment
        return {} if told else {"cluster_detection_method": "mpi4py"}
    # Every pod has the first, also one that runs alone.
    return {} if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= {*environment} else None


def _own_flags() -> dict[str, Any]:
    address = os.environ[COORDINATOR]
    try:
        host, port = address.rsplit(":", 1)
        count, index = (int(os.environ[name]) for name in (PROCESSES, PROCESS_ID))
        if int(port) <= 0 or not 0 <= index < count:
            raise ValueError
    except (KeyError, ValueError) as error:
        given = {name: os.environ.get(name) for name in (COORDINATOR, PROCESSES, PROCESS_ID)}
        raise ParameterError(
            f"the environment has {given}, expected host:port, the number of processes, and a "
            "number below it. Fix: set all three."
        ) from error
    flags = {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }
    if host in _LOOPBACK:
        flags |= {
            # Not on every interface of the machine.
            "coordinator_bind_address": address,
            "initialization_timeout": 60,
            "heartbeat_timeout_seconds": 10,
            "shutdown_timeout_seconds": 15,
        }
    return flags


def _end_at_once(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.__excepthook__(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(1.0)  # all others end with process 0, and may have something to say as well
    # Past what JAX does at exit: it waits for processes that wait for this one.
    os._exit(130 if issubclass(kind, KeyboardInterrupt) else 1)


def _end_with_parent() -> None:
    """Nothing is left behind where the process that started this one was killed."""
    while os.getppid() == int(os.environ[PARENT]):
        time.sleep(0.5)
    os._exit(1)
