"""
Where a person's credentials lie: ``$BART_HOME`` (by default ``~/.config/bart``), one folder, one sign-in.

Every file is made 0600 and moved into place only when all of them are written: a sign-in that fails leaves the old
state as it was. Never talks to the authority.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from ca import wire
from ca.errors import Conflict, NotSignedIn, Unavailable
from cli import ssh_config

VERSION = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """Who is signed in where, and what may be reached."""

    authority: str
    pin: str | None
    user: str
    roles: tuple[str, ...]
    expires: datetime
    cluster: wire.ClusterInfo
    nodes: tuple[wire.ReachableNode, ...]

    def refreshed(self, me: wire.Me) -> Profile:
        """The same sign-in with what the authority says now."""
        return replace(self, roles=tuple(me.roles), cluster=me.cluster, nodes=tuple(me.nodes))


class Home:
    """The folder of one sign-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def certificate(self) -> Path:
        return self.folder / "id-cert.pub"

    def profile(self) -> Profile:
        """The sign-in that is stored. Raises NotSignedIn when there is none."""
        try:
            stored = json.loads((self.folder / "profile.json").read_bytes())
        except FileNotFoundError:
            raise NotSignedIn(
                "nobody is signed in here", hint="bart login --authority URL --pin PIN --user NAME"
            ) from None
        except PermissionError:
            raise _not_ours(self.folder) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.folder / 'profile.json'} cannot be read: {error}", hint="bart login") from None
        return _parse(stored)

    def stored_profile(self) -> Profile | None:
        """The sign-in that is stored, if there is one that can be read."""
        try:
            return self.profile()
        except (NotSignedIn, Unavailable):
            return None

    def token(self) -> str:
        """The secret for the API that came with the sign-in."""
        try:
            return (self.folder / "token").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise NotSignedIn("nobody is signed in here", hint="bart login") from None

    def root(self) -> str | None:
        """The authority's root certificate, if its pin was checked at sign-in."""
        if self.profile().pin is None:
            return None
        try:
            return (self.folder / "root.pem").read_text(encoding="ascii")
        except FileNotFoundError:
            raise NotSignedIn("the authority's root certificate is gone", hint="bart login --pin PIN") from None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time; a second one waits for the first."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_uid != os.getuid():
            raise _not_ours(self.folder)
        lock = os.open(self.folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def store(self, profile: Profile, credentials: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write what *profile* means, and *credentials* (by file name) with it: all or nothing.

        Names asked for earlier are forgotten: they may be reachable now.
        """
        access = ssh_config.access(
            profile.user, profile.cluster, profile.nodes, home=self.folder, python=Path(sys.executable).resolve()
        )
        contents: dict[str, str] = {
            **credentials,
            **ssh_config.files(access),
            "connect.py": (Path(__file__).parent / "connect.py").read_text(encoding="utf-8"),
            "profile.json": json.dumps(_stored(profile), indent=2) + "\n",
        }
        replace_files(self.folder, contents)
        self._forget_asked()

    def forget(self) -> None:
        """Remove the sign-in: key, certificate, token and all that was written for ssh."""
        for name in ("id", "id.pub", "id-cert.pub", "token", "profile.json", "root.pem"):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("ssh_config", "known_hosts", "connect.py"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "asked", ignore_errors=True)

    def _forget_asked(self) -> None:
        for path in (self.folder / "asked").iterdir():
            if path.suffix != ".in":
                path.unlink(missing_ok=True)


def _not_ours(folder: Path) -> Conflict:
    return Conflict(f"{folder} belongs to somebody else", hint="set BART_HOME to a folder of your own")


def home() -> Home:
    """The folder that ``BART_HOME`` names."""
    named = os.environ.get("BART_HOME")
    folder = Path(named) if named else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "bart"
    return Home(Path(os.path.abspath(folder)))  # noqa: PTH100 -- resolve() would follow links that the person made


def replace_files(folder: Path, contents: Mapping[str, str], *, mode: int = 0o600) -> None:
    """Put *contents* (by relative path) in place together. On a failure everything is as it was before."""
    staged: dict[Path, Path] = {}
    replaced: list[tuple[Path, Path | None]] = []
    try:
        for name, text in contents.items():
            place = folder / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            staged[place] = beside(place)
            write_new(staged[place], text, mode=mode)
        for place, new in staged.items():
            replaced.append((place, _kept(place)))
            new.replace(place)
    except BaseException:
        _undo(replaced)
        raise
    finally:
        _drop(staged.values())
        _drop(old for _, old in replaced if old)


def write_new(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Make *path*, which must not exist yet, and see it onto the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, mode)
        file.write(text)
        file.flush()
        os.fsync(handle)


def beside(path: Path) -> Path:
    """A new name in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _kept(place: Path) -> Path | None:
    """A second name for what lies at *place* now, so that it can come back."""
    if not place.exists():
        return None
    old = beside(place)
    try:
        os.link(place, old)
    except OSError:  # not every file system has second names
        shutil.copy2(place, old)
    return old


def _undo(replaced: Iterable[tuple[Path, Path | None]]) -> None:
    for place, old in replaced:
        with suppress(OSError):
            if old:
                old.replace(place)
            else:
                place.unlink(missing_ok=True)


def _drop(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _stored(profile: Profile) -> dict[str, object]:
    return {
        "version": VERSION,
        "authority": profile.authority,
        "pin": profile.pin,
        "user": profile.user,
        "roles": list(profile.roles),
        "expires": profile.expires.isoformat(),
        "cluster": profile.cluster.model_dump(mode="json"),
        "nodes": [node.model_dump(mode="json") for node in profile.nodes],
    }


def _parse(stored: object) -> Profile:
    match stored:
        case {
            "version": 1,
            "authority": str(authority),
            "pin": None | str() as pin,
            "user": str(user),
            "roles": list(roles),
            "expires": str(expires),
            "cluster": dict(cluster),
            "nodes": list(nodes),
        }:
            pass
        case _:
            raise Unavailable("the stored sign-in is of another version", hint="bart login")
    try:
        return Profile(
            authority=authority,
            pin=pin,
            user=user,
            roles=tuple(map(str, roles)),
            expires=datetime.fromisoformat(expires),
            cluster=wire.ClusterInfo.model_validate(cluster),
            nodes=tuple(wire.ReachableNode.model_validate(node) for node in nodes),
        )
    except (ValueError, ValidationError):
        raise Unavailable("the stored sign-in is damaged", hint="bart login") from None
