"""What a computation needs, said before it is taken."""

import os
from pathlib import Path

from ._errors import ResourceError


def available() -> int:
    """Bytes that this process may still take: of the machine, and of its control group."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable"))
        found.append(int(free.split()[1]) * 1024)
    except (OSError, StopIteration, ValueError):
        pages = getattr(os, "sysconf", lambda _: -1)
        try:
            found.append(pages("SC_PHYS_PAGES") * pages("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            found.append(2**62)
    try:
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            found.append(max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass
    return min(found)


def check_memory(what: str, need: int, fix: str = "use fewer points") -> None:
    """`ResourceError` with the numbers where ``need`` bytes are not there."""
    there = available()
    if need > there:
        raise ResourceError(
            f"{what} needs {need / 1e9:.1f} GB, and {there / 1e9:.1f} GB are free. Fix: {fix}."
        )
