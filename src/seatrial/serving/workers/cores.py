"""How many cores may this process use? Its affinity, and the quota of its container (cgroup), which is often less."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = CGROUP) -> int:
    """Whole cores, at least 1; a quota of one and a half is two.

    cgroup: where the container sees its own limits, of version 2 or 1; a process outside of one has none there.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(usable, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Cores that the container may use together; infinite when it is not limited or nothing can be read."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        allowed, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if allowed == "max" else int(allowed) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        old = cgroup / "cpu"
        allowed, period = (old / "cpu.cfs_quota_us").read_text(), (old / "cpu.cfs_period_us").read_text()
        return math.inf if int(allowed) <= 0 else int(allowed) / int(period)
    return math.inf
