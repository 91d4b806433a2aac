"""A gigabyte each way, keys changed on the way: nothing lost, one recording, which holds every byte."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

from recordings import reader
from recordings.format import Input, Output
from tests.bench.measure import sample
from tests.journeys import stage
from tests.long.conftest import Post

GIB = 1 << 30
CHUNK = 1 << 20


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_a_gigabyte_each_way_survives_rekeying_and_is_recorded_once(post: Post, tmp_path: Path) -> None:
    """SSH-25"""
    sent = tmp_path / "sent"
    sample(sent, GIB)
    before = {one["id"] for one in stage.sessions(post.product, user="alice")}
    got, size = hashlib.sha256(), 0
    with sent.open("rb") as source:
        process = subprocess.Popen(
            post.alice.ssh_command("web1", "cat", options=["-oRekeyLimit=64M"]),
            env=post.alice.environment,
            stdin=source,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        late = threading.Timer(900, process.kill)
        late.start()
        while block := process.stdout.read1(CHUNK):
            got.update(block)
            size += len(block)
        process.stdout.close()
        late.cancel()
    assert (process.wait(timeout=10), size) == (0, GIB)
    whole = sha256(sent)
    assert got.hexdigest() == whole

    (session,) = {one["id"] for one in stage.sessions(post.product, user="alice")} - before
    tape = stage.sealed_tape(post.product, session)
    recorded = {Input: hashlib.sha256(), Output: hashlib.sha256()}
    for event in reader.events(tape.folder, 0):
        if type(event) in recorded:
            recorded[type(event)].update(event.data)  # type: ignore[union-attr]
    assert {digest.hexdigest() for digest in recorded.values()} == {whole}
