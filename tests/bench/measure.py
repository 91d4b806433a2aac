"""The numbers: throughput, time to a command, memory and CPU of processes. Linux, from /proc."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

CHUNK = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def sample(file: Path, size: int) -> None:
    """*size* bytes that look like a log: text, different on every line."""
    line = 0
    with file.open("wb") as out:
        left = size
        while left > 0:
            block = b"".join(
                b"2026-01-01T00:00:00Z host%03d app[%07d]: GET /items/%08x took %d ms\n"
                % (n % 97, n, n * 2654435761 % 2**32, n % 311)
                for n in range(line, line + 16_384)
            )[:left]  # fmt: skip
            out.write(block)
            line += 16_384
            left -= len(block)


def download(command: Sequence[str], environment: Mapping[str, str], size: int) -> float:
    """MB/s of *command*'s output, which must be *size* bytes."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = 0
        while block := process.stdout.read1(CHUNK):
            seen += len(block)
    took = time.perf_counter() - began
    if seen != size or process.returncode != 0:
        raise ChildProcessError(f"{seen} of {size} bytes came, exit {process.returncode}: {' '.join(command)}")
    return size / took / 1e6


def upload(command: Sequence[str], environment: Mapping[str, str], file: Path) -> float:
    """MB/s of *file* into *command*, which prints how many bytes it counted."""
    began = time.perf_counter()
    with file.open("rb") as source:
        result = subprocess.run(command, env=environment, stdin=source, capture_output=True, check=False)
    took = time.perf_counter() - began
    size = file.stat().st_size
    if result.returncode != 0 or int(result.stdout or b"-1") != size:
        raise ChildProcessError(f"not all of {size} bytes arrived: {result.stdout!r} {result.stderr!r}")
    return size / took / 1e6


def seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """How long *command* takes from start to exit."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - began


def interleaved(kinds: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of *rounds* of each kind, taken in turns, so that a busy moment hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, take in kinds.items():
            taken[name].append(take())
    return {name: statistics.median(values) for name, values in taken.items()}


def family(pid: int) -> list[int]:
    """*pid* and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, front = [], [pid]
    while front:
        one = front.pop()
        found.append(one)
        front += parents.get(one, [])
    return found


def matching(pids: Iterable[int], words: str) -> list[int]:
    """Those of *pids* whose command line has *words* in it."""
    found = []
    for pid in pids:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words in line:
            found.append(pid)
    return found


def cpu_ms(pids: Iterable[int]) -> float:
    """CPU milliseconds that *pids* and their reaped children have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(fields[n]) for n in (11, 12, 13, 14))
    return total * 1000 / _TICKS


def memory_mib(pids: Iterable[int]) -> float:
    """Proportional set size: shared pages counted once in all."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024
