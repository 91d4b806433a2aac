"""``bart login``: prove who you are once, then plain ``ssh`` works until the certificate runs out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ca import wire
from ca.errors import InvalidInput
from cli import output, secret
from cli.client import Authority, checked_url, pinned_root
from cli.parameters import DURATION
from cli.profile import Home, Profile, home
from recordings import sshsig

NAMESPACE = "bartizan-enrol"


@click.command()
@click.option("--authority", help="Where the authority answers, as https://HOST:PORT. Remembered.")
@click.option("--pin", help="sha256:… of the authority's root, as `bartizan pin` prints it. Remembered.")
@click.option("--user", help="Your name there. Remembered.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--ttl", type=DURATION, help="How long the certificate shall live, for example 8h.")
def login(
    authority: str | None, pin: str | None, user: str | None, password_stdin: bool, ttl: timedelta | None
) -> None:
    """Sign in. Writes key, certificate, ssh_config and known_hosts, so that `ssh NODE` works at once."""
    place = home()
    before = place.stored_profile()
    authority = checked_url(_given(authority, before.authority if before else None, "--authority"))
    user = _given(user, before.user if before else None, "--user")
    same = before is not None and before.authority == authority
    if pin is None and before is not None and same:
        pin = before.pin
    root = _root(place, authority, pin, remembered=same and before is not None and before.pin == pin)
    with Authority.over_https(authority, root=root) as door:
        door.ready()  # one that is down or not trusted is told before a password is typed
        password = secret.password(f"password of {user}", from_stdin=password_stdin)
        with place.changing():
            profile = sign_in(
                place, door, user=user, password=password, ttl=ttl, authority=authority, pin=pin, root=root
            )
    _told(place, profile)


def sign_in(
    place: Home,
    door: Authority,
    *,
    user: str,
    password: str,
    ttl: timedelta | None,
    authority: str,
    pin: str | None,
    root: str | None,
) -> Profile:
    """Make a key, have it certified, write everything. Nothing is written before the authority has said yes."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    nonce = door.login_challenge().nonce
    answer = door.login(
        wire.LoginRequest(
            user=user,
            password=password,
            public_key=public,
            nonce=nonce,
            possession=sshsig.sign(key, nonce.encode("ascii"), namespace=NAMESPACE),
            ttl_seconds=None if ttl is None else int(ttl.total_seconds()),
        )
    )
    profile = Profile(
        authority, pin, answer.user, tuple(answer.roles), answer.expires, answer.cluster, tuple(answer.nodes)
    )
    credentials = {
        "id": key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii"),
        "id.pub": f"{public} {answer.user}\n",
        "id-cert.pub": f"{answer.certificate}\n",
        "token": f"{answer.token}\n",
    }
    if root is not None:
        credentials["root.pem"] = root
    place.store(profile, credentials)
    if answer.note:
        output.note(answer.note)
    return profile


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


def _told(place: Home, profile: Profile) -> None:
    left = output.span(profile.expires - datetime.now(UTC))
    output.note(f"signed in as {profile.user} for {left} (until {output.when(profile.expires)})")
    if not profile.nodes:
        output.note("no node may be reached yet: your roles grant none")
        return
    names = [node.name for node in profile.nodes]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    output.note(f"you may reach {', '.join(names[:5])}{more}")
    config = output.word(place.ssh_config)
    output.hint(f"ssh -F {config} {names[0]}   (or once: bart config --install, then: ssh {names[0]})")
