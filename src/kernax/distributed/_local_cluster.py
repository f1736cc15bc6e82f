"""A cluster on this machine: one script in several processes that find each other."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import ClusterError, ParameterError
from .._inputs import as_whole
from ._initialize import COORDINATOR, PARENT, PROCESS_ID, PROCESSES

LAST_LINES = 20
# The stack of C++ below the message of a process that JAX has ended.
_NOISE = re.compile(r"\s*@\s+0x|\*\*\* Check failure stack trace|\s*$")
# What would speak to JAX of another cluster, or of other devices.
_FOREIGN = ("JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_BIND_ADDRESS", "JAX_LOCAL_DEVICE_IDS")


@dataclass(frozen=True)
class ClusterResult:
    """How the processes of a cluster ended: their exit codes, negative for signals, and output.

    Codes of processes that were ended because another failed or because of the time limit are
    not the processes' own; ``failed`` has the numbers of those that failed by themselves.
    """

    returncodes: tuple[int, ...]
    stdout: tuple[str, ...]
    stderr: tuple[str, ...]
    failed: tuple[int, ...]
    timed_out: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether all processes ended in time, and with 0."""
        return not self.timed_out and not any(self.returncodes)


def local_cluster(
    processes: int,
    script: str | os.PathLike[str],
    *arguments: Any,
    timeout: float = 120.0,
    devices_per_process: int = 1,
    environment: Mapping[str, str] | None = None,
    grace: float = 1.0,
    check: bool = True,
) -> ClusterResult:
    """Run a Python script in several processes of this machine, which become one by
    `kernax.distributed.initialize`, on CPU devices.

    ``arguments``: of the script; ``timeout``: in seconds, for all of it; ``devices_per_process``:
    how many CPU devices each has; ``environment``: variables on top of those of this process. When
    a process fails, the others get ``grace`` seconds to end by themselves, and are then ended;
    also by an exception here, such as KeyboardInterrupt, and where this process is killed. On Linux
    each process is bound to a share of the cores, where there is one for each.

    Raises `ClusterError` with the last lines of the log of each process that failed; its ``result``
    is the `ClusterResult`, which is returned where ``check`` is False.
    """
    if as_whole(processes, "processes") < 1 or as_whole(devices_per_process, "devices") < 1:
        raise ParameterError(
            f"`processes` is {processes} and `devices_per_process` {devices_per_process}, expected "
            "at least 1. Fix: pass for instance 2 and 1."
        )
    if not Path(script).is_file():
        raise ParameterError(f"`script` is {str(script)!r}, and no file. Fix: pass a Python file.")
    command = [sys.executable, "-u", str(script), *map(str, arguments)]
    began, running = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kernax-cluster-") as folder, _free_port() as port:
        shared = _environment(port, processes, devices_per_process) | dict(environment or {})
        logs = [(Path(folder, f"{i}.out"), Path(folder, f"{i}.err")) for i in range(processes)]
        try:
            for i, (out, err) in enumerate(logs):
                with _own_cores(i, processes):
                    running.append(_start(command, shared | {PROCESS_ID: str(i)}, out, err))
            failed, timed_out = _wait(running, began + timeout, grace)
        finally:
            _end(running)
        stdout, stderr = (
            tuple(log[side].read_text(errors="replace") for log in logs) for side in (0, 1)
        )
    codes = tuple(int(process.returncode) for process in running)
    seconds = time.monotonic() - began
    result = ClusterResult(codes, stdout, stderr, failed, timed_out, seconds)
    if check and not result.ok:
        raise ClusterError(_message(result, str(script), timeout), result)
    return result


@contextmanager
def _free_port() -> Iterator[int]:
    """A port that nobody else takes while process 0 has yet to listen there."""
    with socket.socket() as held:
        # The coordinator of JAX binds with this option too, where the system is Linux.
        shared = sys.platform == "linux"
        if shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        if not shared:
            held.close()
        yield port


def _environment(port: int, processes: int, devices: int) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if "host_platform_device_count" not in flag]
    own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return own | {
        COORDINATOR: f"127.0.0.1:{port}",
        PROCESSES: str(processes),
        PARENT: str(os.getpid()),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        # It would catch the signal that ends a process.
        "JAX_ENABLE_PREEMPTION_SERVICE": "false",
        "XLA_FLAGS": " ".join(kept),
    }


def _start(command: list[str], env: dict[str, str], out: Path, err: Path) -> Any:
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # A group of its own, to end it with whatever it has started.
            start_new_session=True,
        )


@contextmanager
def _own_cores(index: int, processes: int) -> Iterator[None]:
    """Cores of its own for what this thread starts, which has them from its first instruction on,
    lest the threads of one process wait for those of another."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    cores, each = sorted(before), len(before) // processes
    os.sched_setaffinity(0, cores[index * each : (index + 1) * each] or cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _wait(running: list[Any], deadline: float, grace: float) -> tuple[tuple[int, ...], bool]:
    """Which processes failed, the first one first; and whether the time was over before."""
    failed: list[int] = []
    while True:
        codes = [process.poll() for process in running]
        now = time.monotonic()
        if any(codes) and not failed:
            deadline = min(deadline, now + grace)
        failed += [i for i, code in enumerate(codes) if code and i not in failed]
        if None not in codes:
            return tuple(failed), False
        if now > deadline:
            return tuple(failed), not failed
        time.sleep(0.02)


def _end(running: list[Any]) -> None:
    try:
        _stop(running, "SIGTERM", 2.0)
    finally:  # also where the user interrupts once more
        _stop(running, "SIGKILL", 60.0)


def _stop(running: list[Any], how: str, seconds: float) -> None:
    for process in running:
        if process.poll() is None:
            _send(process, how)
    deadline = time.monotonic() + seconds
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))


def _send(process: Any, how: str) -> None:
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, getattr(signal, how))
        elif how == "SIGTERM":
            process.terminate()
        else:
            process.kill()


def _message(result: ClusterResult, script: str, timeout: float) -> str:
    count = len(result.returncodes)
    if result.timed_out:
        head = f"{script} ran longer than {timeout:g} s in {count} processes, and was ended."
        shown: tuple[int, ...] = tuple(range(count))
    else:
        ends = [f"process {i} ended with {_code(result.returncodes[i])}" for i in result.failed]
        head = f"{script} in {count} processes: {', '.join(ends)}, expected 0."
        shown = result.failed
    parts = [f"{head} Fix: see the last lines of the log."]
    for i in shown:
        text = result.stderr[i] if result.stderr[i].strip() else result.stdout[i]
        lines = [line for line in text.splitlines() if not _NOISE.match(line)]
        parts += [f"-- process {i}:", *lines[-LAST_LINES:]]
    return "\n".join(parts)


def _code(code: int) -> str:
    if code >= 0:
        return str(code)
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
