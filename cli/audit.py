"""``bartizan audit``: the events, as they were chained, and whether the chain still holds."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator

import click

from ca import wire
from cli import output
from cli.client import Authority
from cli.way_in import WayIn, pass_way

PAGE = 1000


@click.group()
def audit() -> None:
    """Read, export and verify the audit log."""


@audit.command()
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="How many to begin with."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@pass_way
def tail(way: WayIn, lines: int, follow: bool, as_json: bool) -> None:
    """Print the newest events."""
    with way.open() as authority:
        last = 0
        newest: deque[wire.AuditRecord] = deque(maxlen=lines)
        for record in _records(authority, after=0):
            newest.append(record)
            last = record.seq
        for record in newest:
            _printed(record, as_json=as_json)
        while follow:
            for record in _records(authority, after=last):
                _printed(record, as_json=as_json)
                last = record.seq
            sys.stdout.flush()
            time.sleep(1)


@audit.command()
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin behind this sequence number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of one object per line.")
@pass_way
def export(way: WayIn, after: int, as_json: bool) -> None:
    """Print every event with its place in the hash chain, oldest first, one JSON object per line."""
    with way.open() as authority:
        if not as_json:
            for record in _records(authority, after=after):
                output.json_line(record)
            return
        between = "["
        for record in _records(authority, after=after):
            output.data(f"{between}{json.dumps(record.model_dump(mode='json'))}")
            between = ","
        output.data("]" if between == "," else "[]")


@audit.command()
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@pass_way
def verify(way: WayIn, as_json: bool) -> None:
    """Check the hash chain over all events. Exit status 1 when it is broken, naming the first event that is wrong."""
    with way.open() as authority:
        verdict = authority.verify_audit()
    if as_json:
        output.as_json(verdict)
    elif verdict.ok:
        output.data(f"the chain holds: {verdict.records} events")
    else:
        output.data(f"the chain is broken at event {verdict.first_bad}: {output.plain(verdict.problem or 'unknown')}")
    sys.exit(0 if verdict.ok else 1)


def _records(authority: Authority, *, after: int) -> Iterator[wire.AuditRecord]:
    """All events behind *after*, fetched page by page."""
    while page := authority.audit(after=after, limit=PAGE):
        yield from page
        if len(page) < PAGE:  # reading is itself an event: asking on would find it, and then nothing
            return
        after = page[-1].seq


def _printed(record: wire.AuditRecord, *, as_json: bool) -> None:
    if as_json:
        output.json_line(record)
        return
    told = {name: value for name, value in record.fields.items() if value is not None}
    words = " ".join(f"{name}={json.dumps(value)}" for name, value in told.items())
    output.data(output.plain(f"{record.seq:>6}  {output.when(record.at)}  {record.code:<24}  {record.actor}  {words}"))
