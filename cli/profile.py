"""
Where a person's credentials lie: ``$BART_HOME`` (by default ``~/.config/bart``). The first sign-in lies directly in it,
those at other clusters in ``clusters/NAME``; the first one's ssh_config includes theirs.

Every file is made 0600 and moved into place only when all of them are written: a sign-in that fails leaves the old
state as it was. Never talks to the authority.
"""

from __future__ import annotations

import errno
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

import click
from pydantic import ValidationError

from ca import wire
from ca.errors import Conflict, InvalidInput, NotSignedIn, Unavailable
from ca.model import LABEL
from cli import ssh_config
from cli.agent import Agent
from cli.ssh_config import Access

VERSION = 1
CLUSTERS = "clusters"
CREDENTIALS = ("id", "id.pub", "id-cert.pub", "token", "profile.json", "root.pem")
FOR_SSH = ("ssh_config", "known_hosts", "connect.py")


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
    in_agent: bool = False
    """Whether bart's own agent holds the key; else a file does."""
    way: str = "password"
    """How the person signed in: ``password``, ``browser`` or ``device``."""
    provider: str | None = None
    """The identity provider that vouches for the person; None for a local account."""

    def refreshed(self, me: wire.Me) -> Profile:
        """The same sign-in with what the authority says now."""
        return replace(self, roles=tuple(me.roles), cluster=me.cluster, nodes=tuple(me.nodes), provider=me.provider)


class Home:
    """The folder of one sign-in, and *top*, the ``$BART_HOME`` that it lies in."""

    def __init__(self, folder: Path, *, top: Path | None = None) -> None:
        self.folder = folder
        self.top = top or folder

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def is_first(self) -> bool:
        return self.folder == self.top

    @property
    def agent(self) -> Agent:
        """The agent that all sign-ins of this ``$BART_HOME`` share."""
        return Agent(self.top)

    @property
    def certificate(self) -> Path:
        return self.folder / "id-cert.pub"

    def profile(self) -> Profile:
        """The sign-in that is stored. Raises NotSignedIn when there is none."""
        try:
            stored = json.loads((self.folder / "profile.json").read_bytes())
        except FileNotFoundError:
            others = [f"bart --cluster {other.folder.name} …" for other in _beside(self.top) if self.is_first]
            hint = ", or ".join(["bart login --authority https://HOST:PORT --pin sha256:…", *others])
            raise NotSignedIn("nobody is signed in here", hint=hint) from None
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

    def writable(self) -> None:
        """Raise if nothing can be written here. Changes nothing itself, so it can be asked before anything else."""
        there = self.folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.folder))
        if there == self.folder and there.stat().st_uid != os.getuid():
            raise _not_ours(there)
        if not os.access(there, os.W_OK | os.X_OK):
            raise Unavailable(
                f"{there} cannot be written, and what a sign-in gives is kept there; nothing was asked or sent",
                hint="set BART_HOME to a folder that can be written",
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time; a second one waits for the first."""
        for folder in (self.top, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.top.stat().st_uid != os.getuid():
            raise _not_ours(self.top)
        lock = os.open(self.top / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def store(self, profile: Profile, credentials: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write what *profile* means, and *credentials* (by file name) with it: all or nothing.

        Names asked for earlier are forgotten: they may be reachable now.
        """
        access = self._access(profile)
        contents: dict[str, str] = {
            **credentials,
            **ssh_config.files(access),
            "connect.py": (Path(__file__).parent / "connect.py").read_text(encoding="utf-8"),
            "profile.json": json.dumps(_stored(profile), indent=2) + "\n",
        }
        if self.is_first:
            contents["ssh_config"] += ssh_config.including(self._others(), taken=access.names)
        replace_files(self.folder, contents)
        if profile.in_agent:
            self.key.unlink(missing_ok=True)
        self._forget_asked()
        if not self.is_first:
            self._include()

    def public_lines(self) -> list[str]:
        """Public key and certificate of the stored sign-in, as far as they are there."""
        paths = [path for path in (self.folder / "id.pub", self.certificate) if path.exists()]
        return [path.read_text(encoding="utf-8").strip() for path in paths]

    def forget(self) -> None:
        """Remove the sign-in: key, certificate, token and all that was written for ssh."""
        for name in CREDENTIALS + FOR_SSH:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "asked", ignore_errors=True)
        if not self.is_first:
            _emptied(self.folder, self.folder.parent)
        self._include()

    def _access(self, profile: Profile) -> Access:
        return ssh_config.access(
            profile.user,
            profile.cluster,
            profile.nodes,
            home=self.folder,
            python=Path(sys.executable).resolve(),
            agent=self.agent.socket if profile.in_agent else None,
            clusters=[other.folder.name for other in _beside(self.top)] if self.is_first else (),
        )

    def _others(self) -> list[Access]:
        """What the clusters beside the first one give, by name."""
        found = ((other, other.stored_profile()) for other in _beside(self.top))
        return [other._access(profile) for other, profile in found if profile]

    def _include(self) -> None:
        """Write the first ssh_config anew: it is the one that people include, so it leads to all others."""
        first = Home(self.top)
        profile = first.stored_profile()
        access = first._access(profile) if profile else None
        text = ssh_config.config(access) if access else ""
        text += ssh_config.including(self._others(), taken=access.names if access else ())
        if text:
            replace_files(self.top, {"ssh_config": text})
        else:
            first.ssh_config.unlink(missing_ok=True)

    def purge(self) -> None:
        """Remove the last that bart wrote here, once every sign-in is forgotten. Never a file of others."""
        for name in (".lock", "agent.sock", "agent.pid"):
            (self.top / name).unlink(missing_ok=True)
        _emptied(self.top / CLUSTERS, self.top)

    def _forget_asked(self) -> None:
        for path in (self.folder / "asked").iterdir():
            if path.suffix != ".in":
                path.unlink(missing_ok=True)


def _not_ours(folder: Path) -> Conflict:
    return Conflict(f"{folder} belongs to somebody else", hint="set BART_HOME to a folder of your own")


def home() -> Home:
    """The sign-in that ``--cluster`` or ``BART_CLUSTER`` names; otherwise the first one."""
    name = chosen()
    return first() if name is None else named(name)


def chosen() -> str | None:
    """The cluster that was asked for, if one was."""
    context = click.get_current_context(silent=True)
    given = context.find_root().params.get("cluster") if context else None
    name = given or os.environ.get("BART_CLUSTER") or None
    if name is not None and not LABEL.match(name):
        raise InvalidInput(f"{name!r} is not the name of a cluster: lower-case letters, digits and '-'")
    return name


def first() -> Home:
    """The folder that ``BART_HOME`` names."""
    given = os.environ.get("BART_HOME")
    folder = Path(given) if given else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "bart"
    return Home(Path(os.path.abspath(folder)))  # noqa: PTH100 -- resolve() would follow links that the person made


def named(cluster: str) -> Home:
    """Where the sign-in at *cluster* lies, or will lie. The very first one of all is the first one."""
    top = first()
    others = _beside(top.folder)
    profile = top.stored_profile()
    if profile.cluster.cluster == cluster if profile else not others:
        return top
    return Home(top.folder / CLUSTERS / cluster, top=top.folder)


def home_at(authority: str) -> Home:
    """The sign-in at *authority*, if there is one and no cluster was named; otherwise as ``home``."""
    if chosen() is None:
        for place in homes():
            if place.profile().authority == authority:
                return place
    return home()


def homes() -> list[Home]:
    """Everywhere that somebody is signed in, the first one first."""
    top = first()
    return [place for place in (top, *_beside(top.folder)) if place.stored_profile()]


def _beside(top: Path) -> list[Home]:
    """The folders of the clusters that are not the first, by name."""
    folder = top / CLUSTERS
    try:
        found = sorted(path for path in folder.iterdir() if LABEL.match(path.name) and path.is_dir())
    except OSError:
        return []
    return [Home(path, top=top) for path in found]


def _emptied(*folders: Path) -> None:
    """Remove *folders* that hold nothing any more."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


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
        "keys": "agent" if profile.in_agent else "files",
        "way": profile.way,
        "provider": profile.provider,
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
            **rest,
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
            in_agent=rest.get("keys") == "agent",
            way=str(rest.get("way", "password")),
            provider=str(rest["provider"]) if rest.get("provider") else None,
        )
    except (ValueError, ValidationError):
        raise Unavailable("the stored sign-in is damaged", hint="bart login") from None
