"""``bartizan idp``: the identity providers that people sign in with, each from a file of its own."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ca import wire
from ca.errors import Conflict, InvalidInput, NotFound, Unavailable
from ca.provider_file import Provider, parse
from cli import output, secret
from cli.client import Authority
from cli.roles import names_in_force
from cli.way_in import WayIn, pass_way

MARKS = {True: "ok", False: "failed", None: "not tried"}
POLL_SECONDS = 1.0
OUTCOMES = {
    "same": "yes, as before",
    "changed": "yes, with other roles or traits",
    "refused": "no: signed out, sessions ended",
    "unreachable": "nothing: it does not answer",
    "nothing_to_ask_with": "not asked: it gave no refresh token",
}


@click.group()
def idp() -> None:
    """Set up, try out, list and remove identity providers."""


@idp.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The client secret is in this file. Without any --secret-… the stored one stays.",
)
@click.option("--secret-fd", type=click.IntRange(min=0), help="The client secret comes from this open file descriptor.")
@click.option("--secret-stdin", is_flag=True, help="The client secret is the first line of standard input.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@pass_way
def apply_(
    way: WayIn,
    file: Path,
    secret_file: Path | None,
    secret_fd: int | None,
    secret_stdin: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the provider that FILE describes in force. Prints the redirect URI that the provider must know."""
    if str(file) == "-" and secret_stdin:
        raise click.UsageError("standard input cannot hold both the file and the secret")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8 text") from None
    asked = wire.ProviderFile(
        text=text,
        file=file.name,
        secret=secret.client_secret(file=secret_file, descriptor=secret_fd, from_stdin=secret_stdin),
        dry_run=dry_run,
    )
    with way.open() as authority:
        applied = authority.apply_provider(asked)
        _warned(authority, parse(text, file.name))
    for remark in applied.notes:
        output.warning(remark)
    if as_json:
        output.as_json(applied)
        return
    output.note(f"{'would be ' if dry_run else ''}{'added' if applied.created else 'changed'}: {applied.name}")
    output.note("the provider must know this redirect URI:")
    output.data(applied.callback_url)
    if not dry_run:
        output.hint(f"{way.program} idp test {applied.name}")


@idp.command()
@click.argument("name")
@click.option(
    "--token-stdin", is_flag=True, help="Read an ID token (at GitHub: an access token) and say whom it names."
)
@click.option("--sign-in", is_flag=True, help="Print a link; whoever signs in by it is shown, and signed in nowhere.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@pass_way
def test(way: WayIn, name: str, token_stdin: bool, sign_in: bool, as_json: bool) -> None:
    """Try the provider NAME out, step by step. With a token or --sign-in: which person it gives, by which lines."""
    if token_stdin and sign_in:
        raise click.UsageError("--token-stdin and --sign-in exclude each other")
    token = secret.token() if token_stdin else None
    with way.open() as authority:
        if sign_in:
            tested = _signed_in(authority, name)
        else:
            tested = authority.test_provider(name, wire.ProviderTrial(token=token))
    if as_json:
        output.as_json(tested)
    else:
        for step in tested.steps:
            output.block(output.plain(f"{MARKS[step.ok]:<9}  {step.what}: {step.detail}"))
        if tested.person is not None:
            _told(tested.person)
    if not tested.ok:
        sys.exit(1)
    if token is None and not sign_in and not as_json:
        output.hint(f"{way.program} idp test {name} --sign-in   (sign in there, and see whom it gives)")


@idp.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, as_json: bool) -> None:
    """List identity providers, how many people signed in with each, and which do not answer."""
    with way.open() as authority:
        known = authority.providers()
    if as_json:
        output.as_json(known)
        return
    output.table(
        ("name", "kind", "issuer", "people", "silent since", "applied"),
        ([one.name, one.kind, one.issuer, one.users, one.unreachable_since, one.applied] for one in known),
        empty=f"no identity provider yet: {way.program} idp apply FILE --secret-file F",
    )


@idp.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print everything about it as JSON.")
@pass_way
def show(way: WayIn, name: str, as_json: bool) -> None:
    """Print the file of the provider NAME as it was written, and say what else is known of it."""
    with way.open() as authority:
        found = next((one for one in authority.providers() if one.name == name), None)
    if found is None:
        raise NotFound(f"there is no identity provider {name!a}", hint=f"{way.program} idp list")
    if as_json:
        output.as_json(found)
        return
    output.note(f"revision {found.revision}, applied by {found.applied_by} at {output.when(found.applied)}")
    output.note(f"client secret: {'stored' if found.has_secret else 'none'}; {_people(found.users)} signed in with it")
    output.note(f"redirect URI: {found.callback_url}")
    output.block(found.text)


@idp.command()
@click.argument("name")
@click.option("--user", help="Ask about this person alone.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@pass_way
def recheck(way: WayIn, name: str, user: str | None, as_json: bool) -> None:
    """Ask the provider NAME now whether it still vouches for people, instead of within five minutes."""
    with way.open() as authority:
        found = authority.recheck(name, wire.Recheck(user=user)).outcomes
    if as_json:
        output.as_json(found)
        return
    output.table(
        ("user", "the provider says"),
        ([one, OUTCOMES.get(came, came)] for one, came in sorted(found.items())),
        empty=f"nobody has signed in with {name} yet",
    )


@idp.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_way
def remove(way: WayIn, name: str, yes: bool) -> None:
    """Remove the provider NAME. Everybody who signed in with it is signed out, and live sessions end at once."""
    with way.open() as authority:
        people = next((one.users for one in authority.providers() if one.name == name), 0)
        if people and not yes and not output.confirm(f"{_people(people)} signed in with {name}. Sign them all out?"):
            raise Conflict("nothing was changed", hint=f"{way.program} idp remove {name} --yes")
        authority.remove_provider(name)
    output.note(f"removed {name}; whoever signed in with it is signed out")


def _signed_in(authority: Authority, name: str) -> wire.ProviderTested:
    """What came of a sign-in at the provider, in a browser."""
    link = authority.trial_link(name)
    output.note("sign in at the provider by this link; nobody is signed in here by it:")
    output.address(link.url)
    with output.waiting("waiting for the browser") as tick:
        while (left := link.expires - datetime.now(UTC)) > timedelta():
            tick(left)
            came = authority.test_provider(name, wire.ProviderTrial(trial=link.trial))
            if came.steps[-1].ok is not None:
                return came
            time.sleep(POLL_SECONDS)
    raise Unavailable("nobody came back from the provider in time", hint=f"bartizan idp test {name} --sign-in")


def _told(person: wire.TrialPerson) -> None:
    output.block("")
    told: dict[str, object] = {"user": person.user, "roles": person.roles}
    output.fields(told | {f"trait {trait}": values for trait, values in person.traits.items()})
    output.block("")
    for line in person.lines:
        output.block(output.plain(line))


def _warned(authority: Authority, provider: Provider) -> None:
    """A role may be given before the file that says what it allows is applied. More often it is a slip."""
    given = sorted({role for entry in provider.roles for role in entry.roles})
    known = names_in_force(authority) if given else []
    for role in given:
        if role not in known:
            output.warning(f"no role is named {role} (yet); there are: {', '.join(known)}")


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"
