"""``bart recordings``: find, fetch and prove what was recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ca.errors import BartizanError, InvalidInput, NotFound, NotSignedIn, Unavailable
from cli import bundle, output
from cli.client import signed_in
from cli.profile import home
from recordings import reader, seal
from recordings.reader import Verdict

MOST_COMPLETED = 50


def ids(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Ids of recordings, newest first, for a shell's completion; folders beside them, since those play as well."""
    folders = [CompletionItem(begun, type="dir")] if begun.startswith((".", "/", "~")) else []
    try:
        with context.scope(cleanup=False), signed_in(home()) as authority:
            found = authority.recordings()
    except BartizanError:
        return folders  # a shell that completes has no place for reasons
    words = (CompletionItem(one.id, help=f"{one.user} on {one.node} {output.when(one.started)}") for one in found)
    return folders + [word for word in words if word.value.startswith(begun)][:MOST_COMPLETED]


@click.group()
def recordings() -> None:
    """List, verify and export recordings."""


@recordings.command("list")
@click.option("--user", help="Only this person's.")
@click.option("--node", help="Only those on this node.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(user: str | None, node: str | None, as_json: bool) -> None:
    """List the recordings you may read, newest first."""
    with signed_in(home()) as authority:
        found = [
            one
            for one in authority.recordings()
            if (user is None or one.user == user) and (node is None or one.node == node)
        ]
    if as_json:
        output.as_json(found)
        return
    output.table(
        ("id", "user", "node", "login", "started", "ended", "how"),
        ([one.id, one.user, one.node, one.login, one.started, one.ended, one.how or "live"] for one in found),
        empty="no recording that you may read",
    )


@recordings.command()
@click.argument("id", shell_complete=ids)
@click.option(
    "--output", "folder", type=click.Path(path_type=Path), help="A new folder for it. Default: one named like the ID."
)
def export(id: str, folder: Path | None) -> None:
    """Fetch the recording ID with its manifest, signatures and allowed_signers. Prints the folder."""
    with signed_in(home()) as authority:
        files = bundle.export(authority, id, folder or Path(id))
    where = folder or Path(id)
    output.note(f"{len(files)} files")
    if any(file.match("c0.0*.cast.zst") for file in files):
        output.hint(f"cd {output.word(where)} && zstdcat c0.0*.cast.zst | asciinema play -")
    output.hint(f"bart recordings verify {output.word(where if where.is_absolute() else f'./{where}')}")
    output.data(str(where))


@recordings.command()
@click.argument("what", metavar="ID|DIR", shell_complete=ids)
@click.option(
    "--allowed-signers",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Keys to believe: `bartizan ca export recorders`. Default: ask the authority. Never taken from DIR.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def verify(what: str, allowed_signers: Path | None, as_json: bool) -> None:
    """Check signatures, completeness and every byte of a recording. Exit status 1 when anything is wrong."""
    try:
        recorders, authorities = seal.signers(_believed(allowed_signers))
    except seal.SealError as error:
        raise InvalidInput(f"allowed signers: {error}") from None
    with located(what, purpose="verify") as folder:
        verdict = reader.verify(folder, recorder_keys=recorders, authority_keys=authorities)
    if as_json:
        output.as_json(_told(verdict))
    else:
        _shown(what, verdict)
    sys.exit(0 if verdict.ok else 1)


@contextmanager
def located(what: str, *, purpose: bundle.Purpose) -> Iterator[Path]:
    """The folder of a recording: a local one, or one fetched for the moment."""
    if Path(what).is_dir():
        yield Path(what)
    elif bundle.is_id(what):
        with signed_in(home()) as authority, bundle.fetched(authority, what, purpose=purpose) as folder:
            yield folder
    else:
        raise NotFound(f"{what!r} is neither a folder here nor the id of a recording", hint="bart recordings list")


def _believed(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8", errors="replace")
    place = home()
    if place.stored_profile() is None:
        raise NotSignedIn(
            "nobody is signed in here, so whose keys to believe is not known",
            hint="bart login, or --allowed-signers FILE, as `bartizan ca export recorders` prints it",
        )
    with signed_in(place) as authority:
        text = authority.ca("recorders")
    if not text.strip():
        raise Unavailable("the authority knows no recorder yet")
    return text


def _told(verdict: Verdict) -> dict[str, object]:
    sealed = verdict.manifest
    return {
        "ok": verdict.ok,
        "id": sealed.session if sealed else None,
        "how": sealed.how if sealed else None,
        "started": sealed.started if sealed else None,
        "ended": sealed.ended if sealed else None,
        "parts": len(sealed.parts) if sealed else 0,
        "bytes": sum(part.bytes for part in sealed.parts) if sealed else 0,
        "unattested": sealed.unattested if sealed else None,
        "recorder": verdict.recorder.principal if verdict.recorder else None,
        "authority": verdict.authority is not None,
        "problems": [
            {"code": one.code, "message": one.message, "part": one.part, "frame": one.frame} for one in verdict.problems
        ],
    }


def _shown(what: str, verdict: Verdict) -> None:
    for one in verdict.problems:
        output.data(output.plain(f"{one.part}: {one.message}" if one.part else one.message))
    sealed = verdict.manifest
    if sealed is not None and sealed.unattested:
        output.note(f"{sealed.unattested} bytes were written after the last word to the authority: unattested")
    if not verdict.ok:
        output.data(output.plain(f"{what}: NOT verified"))
        return
    assert sealed is not None
    assert verdict.recorder is not None
    signers = f"signed by {verdict.recorder.principal}" + (", countersigned" if verdict.authority else "")
    parts = "1 part" if len(sealed.parts) == 1 else f"{len(sealed.parts)} parts"
    output.data(output.plain(f"{what}: verified, {parts}, {signers}, ended: {sealed.how}"))
