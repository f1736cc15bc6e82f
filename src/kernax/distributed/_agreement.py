"""What one process finds wrong is an error on all of them, so that none waits for another."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from .. import _errors
from .._errors import ClusterError, InputError

T = TypeVar("T")

# Of one exchange; longer messages take a second one.
BYTES = 2048
_SHARED: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in (
        OSError,
        _errors.DTypeError,
        _errors.FormatError,
        _errors.InputError,
        _errors.ParameterError,
        _errors.ResourceError,
        _errors.ShapeError,
    )
}


def agree(call: str, local: Callable[[], T]) -> list[T]:
    """What ``local`` returns on each process, as plain data; or an exception on every process.

    ``call`` says what this is: `InputError` where the processes are at different calls.
    """
    if jax.process_count() == 1:
        return [local()]
    value, error = None, None
    try:
        value = local()
    except Exception as raised:
        error = raised
    own = {"call": call, "value": value, "error": None if error is None else _told(error)}
    reports = [json.loads(text) for text in exchange(json.dumps(own))]
    if error is not None:
        raise error
    here = jax.process_index()
    for i, report in enumerate(reports):
        if report["call"] != call:
            raise InputError(
                f"process {i} is at {report['call']} and process {here} at {call}, expected the "
                "same calls in one order on every process. Fix: branch on nothing that differs "
                "between them."
            )
        if report["error"] is not None:
            name, text = report["error"]
            raise _SHARED.get(name, InputError)(f"{call} failed on process {i}: {text}")
    return [report["value"] for report in reports]


def exchange(message: str) -> list[str]:
    """The message of each process."""
    content = message.encode()
    lengths, parts = _gathered(content, BYTES)
    if max(lengths) > BYTES:
        # To the next power of two: few sizes, of which each is compiled once.
        lengths, parts = _gathered(content, 1 << (max(lengths) - 1).bit_length())
    return [part[:n].tobytes().decode() for n, part in zip(lengths, parts, strict=True)]


def _gathered(content: bytes, size: int) -> tuple[list[int], Any]:
    from jax.experimental import multihost_utils

    # Bytes, since wider integers would lose half of theirs where x64 is off.
    buffer = np.zeros(8 + size, np.uint8)
    buffer[:8] = np.frombuffer(len(content).to_bytes(8, "little"), np.uint8)
    start = content[:size]
    buffer[8 : 8 + len(start)] = np.frombuffer(start, np.uint8)
    try:
        every = np.asarray(multihost_utils.process_allgather(buffer))
    # Of one or the other class, by where it strikes.
    except (RuntimeError, ValueError) as error:
        raise ClusterError(
            f"process {jax.process_index()} lost the others: {error}. Fix: see the log of the "
            "process that ended first, and start all again from the last checkpoint."
        ) from error
    return [int.from_bytes(row[:8].tobytes(), "little") for row in every], every[:, 8:]


def _told(error: Exception) -> tuple[str, str]:
    names = [cls.__name__ for cls in type(error).__mro__]
    return next((name for name in names if name in _SHARED), ""), str(error) or repr(error)
