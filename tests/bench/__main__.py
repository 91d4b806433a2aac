"""``python -m tests.bench``: the table of ratios with one worker, each row ours, theirs, ratio and the goal."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import measure
from tests.bench.stock import PINNED, Stock, running_stock
from tests.product import ROLES, Person, Product, running_product


class Bench:
    """Both sides, side by side, and the rows measured so far."""

    def __init__(
        self, folder: Path, product: Product, alice: Person, stock: Stock, options: argparse.Namespace
    ) -> None:
        self.folder, self.product, self.alice, self.stock, self.options = folder, product, alice, stock, options
        everything = measure.family(product.process.pid)
        self.bastions = measure.matching(everything, "bastion.serve")
        self.authority = measure.matching(everything, "ca.serve")
        self.rows: list[tuple[str, str, str, str, str]] = []

    def ours(self, *words: str, jump: bool = False) -> list[str]:
        return self.alice.ssh_command("web1", *words, way="jump" if jump else "config", options=PINNED)

    def row(self, name: str, ours: str, theirs: str, ratio: float | None, goal: str) -> None:
        shown = "-" if ratio is None else f"{ratio:.2f} x"
        self.rows.append((name, ours, theirs, shown, goal))
        print(f"  {name}: {ours} against {theirs} ({shown}, goal {goal})", file=sys.stderr, flush=True)

    def throughput(self) -> None:
        size = self.options.mib << 20
        file = self.folder / "sample"
        measure.sample(file, size)
        env, theirs_env = self.alice.environment, self.stock.environment
        cat, count = f"cat {file}", "wc -c"
        ways: dict[str, tuple[Callable[[str], Sequence[str]], dict[str, str]]] = {
            "written config": (lambda words: self.ours(words), env),
            "-J by hand": (lambda words: self.ours(words, jump=True), env),
            "stock": (lambda words: self.stock.command(words, through_jump=True), theirs_env),
        }
        for direction in ("down", "up"):
            best: dict[str, float] = {}
            for _ in range(self.options.repeat):
                for name, (command, environment) in ways.items():
                    if direction == "down":
                        speed = measure.download(command(cat), environment, size)
                    else:
                        speed = measure.upload(command(count), environment, file)
                    best[name] = max(best.get(name, 0.0), speed)
            theirs = best["stock"]
            for name, goal in (("written config", "≥ 1.25"), ("-J by hand", "≥ 0.90")):
                self.row(
                    f"bulk {direction}, {name}",
                    f"{best[name]:.0f} MB/s",
                    f"{theirs:.0f} MB/s",
                    best[name] / theirs,
                    goal,
                )
        file.unlink()

    def time_to_command(self) -> None:
        env, theirs_env = self.alice.environment, self.stock.environment
        idle = self._used(lambda: time.sleep(5))
        began = time.perf_counter()
        took: dict[str, float] = {}

        def turns() -> None:
            took.update(self._turns(env, theirs_env))
            time.sleep(1)

        busy = self._used(turns)
        # What the processes use anyway, for keeping in touch, is no cost of a session.
        anyway = (time.perf_counter() - began) / 5
        used = {name: (busy[name] - idle[name] * anyway) / self.options.rounds for name in busy}
        self._time_rows(took, used)

    def _turns(self, env: dict[str, str], theirs_env: dict[str, str]) -> dict[str, float]:
        return measure.interleaved(
            {
                "ours": lambda: measure.seconds(self.ours("true"), env),
                "jump": lambda: measure.seconds(self.stock.command("true", through_jump=True), theirs_env),
                "direct": lambda: measure.seconds(self.stock.command("true", through_jump=False), theirs_env),
            },
            self.options.rounds,
        )

    def _used(self, act: Callable[[], None]) -> dict[str, float]:
        """CPU milliseconds that each watched part uses while *act* runs."""
        before = {name: measure.cpu_ms(pids) for name, pids in self._watched().items()}
        act()
        return {name: measure.cpu_ms(pids) - before[name] for name, pids in self._watched().items()}

    def _time_rows(self, took: dict[str, float], used: dict[str, float]) -> None:
        ours, jump, direct = (f"{took[name] * 1000:.0f} ms" for name in ("ours", "jump", "direct"))
        self.row("ssh web1 true, against -J", ours, jump, took["ours"] / took["jump"], "≤ 0.55")
        self.row("ssh web1 true, against direct ssh", ours, direct, took["ours"] / took["direct"], "< 1.00")
        theirs = f"{used['jump']:.1f} ms"
        self.row(
            "CPU per session, bastion", f"{used['bastion']:.1f} ms", theirs, used["bastion"] / used["jump"], "≤ 15 ms"
        )
        self.row("CPU per session, authority", f"{used['authority']:.1f} ms", "-", None, "≤ 10 ms")

    def _watched(self) -> dict[str, list[int]]:
        return {"bastion": self.bastions, "authority": self.authority, "jump": [self.stock.jump.process.pid]}

    def memory(self) -> None:
        count = self.options.sessions
        with ExitStack() as stack:
            before = measure.memory_mib(self.bastions)
            self._idle(stack, [self.ours("echo ready; exec sleep 600")] * count, self.alice.environment)
            time.sleep(2)
            ours = (measure.memory_mib(self.bastions) - before) / count
        time.sleep(3)
        with ExitStack() as stack:
            jump = self.stock.jump.process.pid
            before = measure.memory_mib(measure.family(jump))
            command = self.stock.command("echo ready; exec sleep 600", through_jump=True)
            self._idle(stack, [command] * count, self.stock.environment)
            theirs = (measure.memory_mib(measure.family(jump)) - before) / count
        self.row(
            f"memory per idle session, {count}", f"{ours:.2f} MiB", f"{theirs:.2f} MiB", ours / theirs, "≤ 0.25 MiB"
        )

    def _idle(self, stack: ExitStack, commands: Sequence[Sequence[str]], environment: dict[str, str]) -> None:
        """Open all sessions, ten at a time, and wait until each has said that it is there."""
        for start in range(0, len(commands), 10):
            batch = []
            for command in commands[start : start + 10]:
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
                stack.callback(process.wait)
                stack.callback(process.kill)
                batch.append(process)
            for process in batch:
                assert process.stdout is not None
                assert process.stderr is not None
                if process.stdout.readline() != b"ready\n":
                    raise ChildProcessError(process.stderr.read().decode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of a bulk transfer (1024)")
    parser.add_argument("--repeat", type=int, default=2, help="bulk transfers of each kind; the best counts (2)")
    parser.add_argument(
        "--rounds", type=int, default=50, help="runs of 'ssh web1 true' of each kind; the median counts (50)"
    )
    parser.add_argument("--sessions", type=int, default=200, help="idle sessions for the memory row (200)")
    parser.add_argument("--only", choices=["throughput", "time", "memory"], help="one part only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bartizan-bench-") as text, ExitStack() as stack:
        folder = Path(text)
        product = stack.enter_context(running_product(folder / "product", "--workers", "1"))
        product.apply_roles(ROLES)
        stack.enter_context(product.node("web1", env="dev"))
        alice = product.person("alice", "developer")
        stock = stack.enter_context(running_stock(folder / "stock"))
        bench = Bench(folder, product, alice, stock, options)
        for name, part in (("time", bench.time_to_command), ("memory", bench.memory), ("throughput", bench.throughput)):
            if options.only in (None, name):
                part()
        _print(bench.rows)
    return 0


def _print(rows: list[tuple[str, str, str, str, str]]) -> None:
    table = Table(title=f"Bartizan against stock OpenSSH -J, one run, {os.cpu_count()} cores, recording on")
    for column in ("what", "ours", "theirs", "ratio", "goal"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
