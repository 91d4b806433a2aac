"""Somebody else who is connected while others misbehave: her echo must come back as ever."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.product import Person

EVERY_SECONDS = 0.02
AT_MOST_SECONDS = 0.25


@dataclass(slots=True)
class Canary:
    """Round trips of one line through the bastion, in seconds."""

    took: list[float] = field(default_factory=list)
    sings: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def sing(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        while not self.over.wait(EVERY_SECONDS):
            began = time.perf_counter()
            process.stdin.write(b"tweet\n")
            process.stdin.flush()
            if process.stdout.readline() != b"tweet\n":
                return
            if self.sings.is_set():  # the first one waited for the connection
                self.took.append(time.perf_counter() - began)
            self.sings.set()

    @property
    def slow(self) -> float:
        """The 99th percentile: one hiccup of a shared machine is not the attack's."""
        return statistics.quantiles(self.took, n=100)[98]


@contextmanager
def canary(person: Person) -> Iterator[Canary]:
    """Sings until the end of the block; then it must be alive, and must never have waited long."""
    process = subprocess.Popen(
        person.ssh_command("web1", "cat"), env=person.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    bird = Canary()
    singing = threading.Thread(target=bird.sing, args=(process,), daemon=True)
    singing.start()
    try:
        assert bird.sings.wait(timeout=30), "the canary never sang"
        yield bird
        time.sleep(0.5)
        assert singing.is_alive(), "the canary is dead"
        print(f"\ncanary: {len(bird.took)} echoes, median {statistics.median(bird.took):.4f} s, p99 {bird.slow:.4f} s")
        assert bird.slow < AT_MOST_SECONDS
    finally:
        bird.over.set()
        process.kill()
        process.wait(timeout=10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def rss(pid: int) -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) << 10


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
