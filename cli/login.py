"""``bart login``: prove who you are once, then plain ``ssh`` works until the certificate runs out."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import click

from ca import sshcert, wire
from ca.errors import Conflict, InvalidInput, NotFound
from cli import by_browser, by_device, by_password, clock, config, output, second_factor
from cli.client import Authority, checked_url, pinned_root
from cli.fresh_key import FreshKey
from cli.parameters import DURATION
from cli.profile import Home, Profile, chosen, home, home_at, homes


class Way(StrEnum):
    """How somebody signs in."""

    PASSWORD = "password"
    BROWSER = "browser"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Asked:
    """What stood on the command line about the way."""

    user: str | None = None
    password_stdin: bool = False
    no_browser: bool = False
    opens: bool | None = None
    port: int = 0


@click.command()
@click.option("--authority", help="Where the authority answers, as https://HOST:PORT. Remembered.")
@click.option("--pin", help="sha256:… of the authority's root, as `bartizan pin` prints it. Remembered.")
@click.option("--user", help="Sign in with a password, as this person. Remembered.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, a one-time code below it.")
@click.option("--no-browser", is_flag=True, help="Show a code and a link for a browser on another machine.")
@click.option("--open/--no-open", "opens", default=None, help="Open the browser, or only print the link for it.")
@click.option(
    "--callback-port", type=click.IntRange(1024, 65_535), help="Where the browser comes back to. Default: any."
)
@click.option("--agent/--no-agent", default=None, help="Keep the key in bart's own agent, or in a file. Remembered.")
@click.option("--ttl", type=DURATION, help="How long the certificate shall live, for example 8h.")
@click.option("--install", is_flag=True, help="Then include the written config in ~/.ssh/config, after asking.")
@click.option("--json", "as_json", is_flag=True, help="Print who is signed in as JSON.")
def login(
    authority: str | None,
    pin: str | None,
    user: str | None,
    password_stdin: bool,
    no_browser: bool,
    opens: bool | None,
    callback_port: int | None,
    agent: bool | None,
    ttl: timedelta | None,
    install: bool,
    as_json: bool,
) -> None:
    """Sign in. Writes key, certificate, ssh_config and known_hosts, so that `ssh NODE` works at once."""
    asked = Asked(user, password_stdin, no_browser, opens, callback_port or 0)
    _refuse_contradictions(asked)
    place = home() if authority is None else home_at(checked_url(authority))
    before = place.stored_profile()
    authority = checked_url(_given(authority, before.authority if before else None, "--authority"))
    place.writable()
    in_agent = agent if agent is not None else before is not None and before.in_agent
    if in_agent:
        place.agent.found()
    same = before is not None and before.authority == authority
    if pin is None and before is not None and same:
        pin = before.pin
    root = _root(place, authority, pin, remembered=same and before is not None and before.pin == pin)
    with Authority.over_https(authority, root=root, pin=pin) as door:
        door.ready()  # one that is down or not trusted is told before a password is typed
        _warn_of_clock(door)
        _fits_if_told(place, door)
        _warn_of_replacement(before, authority)
        way = _way(door, asked)
        key = FreshKey()
        answer = _signed_in(door, key, way, asked, before, ttl=ttl)
        _fits(place, answer.cluster.cluster, authority)
        profile = _profile(answer, way, authority=authority, pin=pin, in_agent=in_agent)
        with place.changing():
            _store(place, profile, key, answer, root, life=answer.expires - door.now())
    _told(place, profile, answer, as_json=as_json)
    if install:
        config.put_in(place, yes=False)


def way_of(
    asked: Asked, methods: list[wire.LoginMethod], environment: Mapping[str, str], system: str
) -> tuple[Way, str | None]:
    """The way to take, and why when it is not the one that a person would expect. Pure."""
    if asked.user or asked.password_stdin:
        return Way.PASSWORD, None
    if asked.no_browser:
        return Way.DEVICE, None
    if asked.opens is not None or asked.port:
        return Way.BROWSER, None
    if all(method.kind == "password" for method in methods):
        return Way.PASSWORD, None
    missing = no_browser_here(environment, system)
    return (Way.DEVICE, missing) if missing else (Way.BROWSER, None)


def no_browser_here(environment: Mapping[str, str], system: str) -> str | None:
    """Why a browser that we open would not be seen by whoever typed the command; None when it would. Pure."""
    if environment.get("SSH_CONNECTION"):
        return "this is a session over ssh"
    screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY") or environment.get("BROWSER")
    return "there is no screen here" if system.startswith("linux") and not screen else None


def _refuse_contradictions(asked: Asked) -> None:
    browser = asked.opens is not None or asked.port
    if asked.no_browser and browser:
        raise click.UsageError("--no-browser excludes --open, --no-open and --callback-port")
    if (asked.user or asked.password_stdin) and (asked.no_browser or browser):
        raise click.UsageError("--user and --password-stdin sign in with a password; leave them out to use a browser")


def _root(place: Home, authority: str, pin: str | None, *, remembered: bool) -> str | None:
    """The root to trust: the stored one, the one that *pin* proves, or (without a pin) what the system trusts."""
    if pin is None:
        return None
    return place.root() if remembered else pinned_root(authority, pin)


def _given(value: str | None, remembered: str | None, option: str) -> str:
    if not (value or remembered):
        raise InvalidInput(
            f"{option} is missing, and no earlier sign-in tells it",
            hint="bart login --authority https://HOST:PORT --pin sha256:… --user NAME",
        )
    return value or remembered or ""


def _warn_of_clock(door: Authority) -> None:
    wrong = clock.warning(door.ahead, datetime.now(UTC))
    if wrong:
        output.warning(wrong)


def _warn_of_replacement(before: Profile | None, authority: str) -> None:
    if before is not None and before.authority != authority:
        output.warning(f"this takes the place of your sign-in at {before.authority}")
        output.hint("to keep both, stop here and name the new one: bart --cluster NAME login …")


def _fits_if_told(place: Home, door: Authority) -> None:
    """With several clusters, ask for the name before anybody types a password in vain."""
    if chosen() is None and len(homes()) < 2:
        return
    try:
        _fits(place, door.cluster().cluster, door.place)
    except NotFound:
        pass  # the sign-in itself will tell


def _fits(place: Home, cluster: str, authority: str) -> None:
    """Raise unless the cluster may lie in *place*: one name, one cluster, since ssh knows it by its name alone."""
    wanted = chosen() or (None if place.is_first else place.folder.name)
    if wanted is not None and wanted != cluster:
        raise InvalidInput(
            f"the cluster at {authority} is called {cluster!r}, not {wanted!r}",
            hint=f"bart --cluster {output.word(cluster)} login --authority {authority}",
        )
    for other in homes():
        there = other.profile()
        if there.cluster.cluster != cluster or there.authority == authority:
            continue
        if other.folder != place.folder or chosen() is not None:
            raise Conflict(
                f"you are signed in at another cluster named {cluster!r}, {there.authority}, "
                f"and names ending in .{cluster} can lead to one of them only",
                hint=f"bart clusters remove {output.word(cluster)}, or keep this one in another BART_HOME",
            )


def _way(door: Authority, asked: Asked) -> Way:
    by_hand = asked.user or asked.password_stdin
    way, why = way_of(asked, [] if by_hand else door.login_methods(), os.environ, sys.platform)
    if why:
        output.note(f"{why}, so no browser is opened; --open opens one all the same")
    return way


def _signed_in(
    door: Authority, key: FreshKey, way: Way, asked: Asked, before: Profile | None, *, ttl: timedelta | None
) -> wire.LoginAnswer:
    match way:
        case Way.PASSWORD:
            user = _user(asked.user or (before.user if before else None), door.place)
            return by_password.sign_in(door, key, user=user, from_stdin=asked.password_stdin, ttl=ttl)
        case Way.BROWSER:
            return by_browser.sign_in(door, key, ttl=ttl, opens=asked.opens is not False, port=asked.port)
        case Way.DEVICE:
            return by_device.sign_in(door, key, ttl=ttl)


def _user(known: str | None, authority: str) -> str:
    if known is None and sys.stdin.isatty():
        return str(click.prompt(f"your name at {authority}", err=True))
    return _given(known, None, "--user")


def _profile(answer: wire.LoginAnswer, way: Way, *, authority: str, pin: str | None, in_agent: bool) -> Profile:
    return Profile(
        authority=authority,
        pin=pin,
        user=answer.user,
        roles=tuple(answer.roles),
        expires=answer.expires,
        cluster=answer.cluster,
        nodes=tuple(answer.nodes),
        in_agent=in_agent,
        way=str(way),
    )


def _store(
    place: Home, profile: Profile, key: FreshKey, answer: wire.LoginAnswer, root: str | None, *, life: timedelta
) -> None:
    """Write everything, or put the key into the agent; what was there before goes when the new is in place."""
    old = place.public_lines()
    credentials = {
        "id.pub": f"{key.line} {answer.user}\n",
        "id-cert.pub": f"{answer.certificate}\n",
        "token": f"{answer.token}\n",
    }
    if root is not None:
        credentials["root.pem"] = root
    try:
        if profile.in_agent:
            place.agent.ensure()
            place.agent.add(key, answer.certificate, life=life, comment=answer.user)
        else:
            credentials["id"] = key.file()
        place.store(profile, credentials)
    except BaseException:
        place.agent.remove(key.line, answer.certificate)
        place.agent.end()
        raise
    place.agent.remove(*old)
    if not profile.in_agent:
        place.agent.end()


def _told(place: Home, profile: Profile, answer: wire.LoginAnswer, *, as_json: bool) -> None:
    if answer.note:
        output.note(answer.note)
    _warn_of_misfit(answer.certificate)
    if as_json:
        output.as_json(_summary(place, profile, answer))
        return
    left = output.span(profile.expires - datetime.now(UTC))
    output.note(f"signed in as {profile.user} for {left} (until {output.when(profile.expires)})")
    if answer.recovery_codes:
        second_factor.show_recovery_codes([output.plain(code) for code in answer.recovery_codes])
    if not profile.nodes:
        output.note("you may reach no node yet: there is none that your roles reach")
        return
    names = [node.name for node in profile.nodes]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    output.note(f"you may reach {', '.join(names[:5])}{more}")
    written = output.word(place.ssh_config)
    output.hint(f"ssh -F {written} {names[0]}   (or once: bart config --install, then: ssh {names[0]})")


def _summary(place: Home, profile: Profile, answer: wire.LoginAnswer) -> dict[str, object]:
    return {
        "user": profile.user,
        "roles": list(profile.roles),
        "authority": profile.authority,
        "cluster": profile.cluster.cluster,
        "expires": profile.expires,
        "keys": "agent" if profile.in_agent else "files",
        "way": profile.way,
        "nodes": [node.name for node in profile.nodes],
        "ssh_config": place.ssh_config,
        "recovery_codes": answer.recovery_codes,
    }


def _warn_of_misfit(certificate: str) -> None:
    """A certificate that this machine's clock does not like is told; ssh would only say that it was refused."""
    try:
        read = sshcert.from_line(certificate)
    except sshcert.CertificateError:
        return  # whatever it is, the bastion will refuse it and say why
    wrong = clock.misfit(datetime.fromtimestamp(read.valid_after, UTC), read.expires, datetime.now(UTC))
    if wrong:
        output.warning(wrong)
