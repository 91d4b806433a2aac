"""
The audit log: the closed union of events, and the hash chain over them. Pure; importable by the bastion.

An event says what happened, in fields of fixed types and bounded length. Its ``code`` is stable: scripts match on it.
``record`` turns an event into the fields that are stored and sent, ``parse`` turns them back and takes nothing else:
bastions send events, and a bastion may have been taken over. Control characters are kept as they came, and escaped
where they are shown (``visible``).

The chain: ``hash = SHA-256(prev, a newline, the canonical line)``; ``prev`` is the hash of the record before, 64
zeros before the first. The canonical line is the JSON object ``{"actor", "at", "code", "fields", "seq"}`` with sorted
keys, no blanks, ASCII only, ``at`` in UTC with microseconds.
``printf '%s\\n%s' "$prev" "$line" | sha256sum`` checks it.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from ca.errors import BartizanError

GENESIS = "0" * 64
"""What the first record names as the hash before it."""


class AuditError(BartizanError):
    """This is no event of ours, or not in the shape it must have."""

    kind = "audit_invalid"


@dataclass(frozen=True, slots=True)
class _Word:
    """A string of our own making: a name, an id, a fingerprint. Too long is an error."""

    most: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A string from outside. When an event is made, what is too long is cut and says so; ``parse`` refuses it."""

    most: int


@dataclass(frozen=True, slots=True)
class _Shape:
    """A string of exactly this shape."""

    pattern: re.Pattern[str]


Word = Annotated[str, _Word(256)]
Text = Annotated[str, _Text(1_024)]
Path = Annotated[str, _Text(4_096)]
Command = Annotated[str, _Text(16_384)]
Digest = Annotated[str, _Shape(re.compile(r"[0-9a-f]{64}\Z"))]
Moment = Annotated[str, _Shape(re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)\Z"))]
"""A time in UTC as text; ``moment()`` makes one."""

MOST_ITEMS = 1_000
MOST_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. Fields are checked when an event is made: one that exists is valid."""

    code: ClassVar[str]

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            object.__setattr__(self, name, _checked(kind, getattr(self, name), f"{self.code}: {name}", cut=True))


# --- the cluster ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterCreated(Event):
    """The first start on an empty data folder made the keys and the database."""

    code: ClassVar[str] = "cluster.created"
    cluster: Word


@dataclass(frozen=True, slots=True)
class ClusterStarted(Event):
    """The authority started. ``repaired`` says what it had to put right after a crash."""

    code: ClassVar[str] = "cluster.started"
    version: Word
    repaired: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterStopped(Event):
    """The authority was asked to stop, and did."""

    code: ClassVar[str] = "cluster.stopped"


@dataclass(frozen=True, slots=True)
class CaMade(Event):
    """A certificate authority got a key. ``ca`` is ``user``, ``target``, ``host`` or ``bastion``."""

    code: ClassVar[str] = "ca.made"
    ca: Word
    fingerprint: Word


# --- people ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserAdded(Event):
    """A local account was made."""

    code: ClassVar[str] = "user.added"
    user: Word
    roles: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class UserInvited(Event):
    """A one-time link was made, with which the person sets a password."""

    code: ClassVar[str] = "user.invited"
    user: Word
    expires: Moment


@dataclass(frozen=True, slots=True)
class UserChanged(Event):
    """A person's roles were set anew. ``before`` is what they were."""

    code: ClassVar[str] = "user.changed"
    user: Word
    roles: tuple[Word, ...]
    before: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class UserHandedOver(Event):
    """A local account became one that an identity provider vouches for. ``before`` are the roles it held."""

    code: ClassVar[str] = "user.handed_over"
    user: Word
    provider: Word
    before: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class UserDisabled(Event):
    """An account was closed: no sign-in, no session."""

    code: ClassVar[str] = "user.disabled"
    user: Word


@dataclass(frozen=True, slots=True)
class UserEnabled(Event):
    """A closed account was opened again."""

    code: ClassVar[str] = "user.enabled"
    user: Word


@dataclass(frozen=True, slots=True)
class UserPasswordSet(Event):
    """A password was set: by the person through an invitation, or by an administrator (``reset``)."""

    code: ClassVar[str] = "user.password_set"
    user: Word
    reset: bool = False


@dataclass(frozen=True, slots=True)
class LoginSucceeded(Event):
    """A person signed in. ``method`` is ``password``, ``password+code``, or the provider's name."""

    code: ClassVar[str] = "login.succeeded"
    user: Word
    source: Word
    method: Word = "password"


@dataclass(frozen=True, slots=True)
class LoginFailed(Event):
    """A sign-in failed. ``user`` is what was typed, whoever that is; ``count`` > 1 stands for so many alike."""

    code: ClassVar[str] = "login.failed"
    user: Text
    source: Word
    reason: Word
    count: int = 1


@dataclass(frozen=True, slots=True)
class LoginLockedOut(Event):
    """Too many failures: this person cannot sign in from this source for a while."""

    code: ClassVar[str] = "login.locked_out"
    user: Text
    source: Word
    until: Moment


@dataclass(frozen=True, slots=True)
class LoginEnded(Event):
    """A person signed out; the token is worth nothing any more."""

    code: ClassVar[str] = "login.ended"
    user: Word


@dataclass(frozen=True, slots=True)
class TokenRevoked(Event):
    """A person's token was taken back before its end."""

    code: ClassVar[str] = "token.revoked"
    user: Word
    reason: Text


@dataclass(frozen=True, slots=True)
class LoginRefused(Event):
    """A sign-in with an identity provider came to nothing: ``reason`` is the code, ``detail`` says which rule."""

    code: ClassVar[str] = "login.refused"
    provider: Word
    source: Word
    reason: Word
    detail: Text | None = None
    subject: Text | None = None


@dataclass(frozen=True, slots=True)
class LoginEndedEverywhere(Event):
    """A person (or an administrator for them) signed out everywhere: every token ended, every certificate revoked."""

    code: ClassVar[str] = "login.ended_everywhere"
    user: Word
    tokens: int
    certificates: int


@dataclass(frozen=True, slots=True)
class DeviceAsked(Event):
    """A machine without a browser asked to be signed in; somebody has to approve it in a browser."""

    code: ClassVar[str] = "device.asked"
    host: Text
    source: Word


@dataclass(frozen=True, slots=True)
class DeviceDecided(Event):
    """A person approved or refused a machine that asked to be signed in as them."""

    code: ClassVar[str] = "device.decided"
    user: Word
    host: Text
    asked_from: Word
    source: Word
    approved: bool


@dataclass(frozen=True, slots=True)
class FactorAdded(Event):
    """A person set up a second factor, and confirmed it with a code."""

    code: ClassVar[str] = "factor.added"
    user: Word


@dataclass(frozen=True, slots=True)
class FactorRemoved(Event):
    """A second factor was taken away: by the person, or by an administrator (``reset``)."""

    code: ClassVar[str] = "factor.removed"
    user: Word
    reset: bool = False


@dataclass(frozen=True, slots=True)
class FactorRecoveryCodesMade(Event):
    """A person got new recovery codes; earlier ones are worth nothing."""

    code: ClassVar[str] = "factor.recovery_codes_made"
    user: Word
    count: int


@dataclass(frozen=True, slots=True)
class FactorRecoveryCodeUsed(Event):
    """A person signed in with a recovery code. ``left`` are still good."""

    code: ClassVar[str] = "factor.recovery_code_used"
    user: Word
    source: Word
    left: int


# --- identity providers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderApplied(Event):
    """An identity provider was set up, or its file changed. ``sha256`` is that of the file."""

    code: ClassVar[str] = "provider.applied"
    provider: Word
    issuer: Text
    revision: int
    sha256: Digest
    new_secret: bool


@dataclass(frozen=True, slots=True)
class ProviderRemoved(Event):
    """An identity provider was taken out: nobody signs in with it any more. ``users`` had."""

    code: ClassVar[str] = "provider.removed"
    provider: Word
    users: int


@dataclass(frozen=True, slots=True)
class ProviderUnreachable(Event):
    """A provider could not be asked whether it still vouches for people. Said once, until it answers again."""

    code: ClassVar[str] = "provider.unreachable"
    provider: Word
    problem: Text


@dataclass(frozen=True, slots=True)
class ProviderReturned(Event):
    """A provider that could not be reached answers again."""

    code: ClassVar[str] = "provider.returned"
    provider: Word
    seconds: int


@dataclass(frozen=True, slots=True)
class ProviderTested(Event):
    """An administrator tried a provider out."""

    code: ClassVar[str] = "provider.tested"
    provider: Word
    ok: bool


@dataclass(frozen=True, slots=True)
class IdentityAdded(Event):
    """Somebody signed in with a provider for the first time and became this person here."""

    code: ClassVar[str] = "identity.added"
    user: Word
    provider: Word
    issuer: Text
    subject: Text


@dataclass(frozen=True, slots=True)
class IdentityRemoved(Event):
    """A person's tie to an account at a provider was cut: another account may take the name."""

    code: ClassVar[str] = "identity.removed"
    user: Word
    provider: Word
    issuer: Text
    subject: Text


@dataclass(frozen=True, slots=True)
class IdentityChanged(Event):
    """What a provider says of a person maps to other roles or traits than before."""

    code: ClassVar[str] = "identity.changed"
    user: Word
    provider: Word
    roles: tuple[Word, ...]
    before: tuple[Word, ...]
    traits: Mapping[Word, tuple[Text, ...]] | None = None
    """All traits as they are now. None: they are what they were."""


@dataclass(frozen=True, slots=True)
class IdentityRefused(Event):
    """A provider no longer vouches for a person: what was issued is revoked, live sessions end."""

    code: ClassVar[str] = "identity.refused"
    user: Word
    provider: Word
    reason: Text
    tokens: int
    certificates: int


# --- certificates and roles -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CertificateIssued(Event):
    """A certificate was decided and stored, to be signed. ``fingerprint`` is that of the key it certifies."""

    code: ClassVar[str] = "certificate.issued"
    ca: Word
    serial: int
    key_id: Word
    principals: tuple[Word, ...]
    fingerprint: Word
    valid_after: Moment
    valid_before: Moment
    user: Word | None = None
    node: Word | None = None
    session: Word | None = None


@dataclass(frozen=True, slots=True)
class CertificateDenied(Event):
    """A certificate was asked for and refused; nothing was signed and no serial was used."""

    code: ClassVar[str] = "certificate.denied"
    ca: Word
    reason: Word
    user: Text | None = None
    node: Text | None = None
    detail: Text | None = None


@dataclass(frozen=True, slots=True)
class CertificateRevoked(Event):
    """A certificate is not taken any more."""

    code: ClassVar[str] = "certificate.revoked"
    ca: Word
    serial: int
    reason: Text | None = None


@dataclass(frozen=True, slots=True)
class CertificateVoided(Event):
    """A stored certificate was never handed out: what the key signed did not verify, or we stopped before."""

    code: ClassVar[str] = "certificate.voided"
    ca: Word
    serial: int
    reason: Text


@dataclass(frozen=True, slots=True)
class RolesApplied(Event):
    """A roles file took effect. ``sha256`` is that of its text."""

    code: ClassVar[str] = "roles.applied"
    added: tuple[Word, ...]
    changed: tuple[Word, ...]
    removed: tuple[Word, ...]
    sha256: Digest


# --- nodes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeAdded(Event):
    """An administrator registered a node. ``pinned`` are fingerprints of host keys given by hand."""

    code: ClassVar[str] = "node.added"
    node_id: Word
    node: Word
    address: Word
    labels: Mapping[Word, Word]
    pinned: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRemoved(Event):
    """A node was taken out; its name is free again."""

    code: ClassVar[str] = "node.removed"
    node_id: Word
    node: Word


@dataclass(frozen=True, slots=True)
class NodeJoined(Event):
    """A host joined with a token and proved its host keys. ``replaced``: the name was there before."""

    code: ClassVar[str] = "node.joined"
    node_id: Word
    node: Word
    address: Word
    source: Word
    labels: Mapping[Word, Word]
    host_keys: tuple[Word, ...]
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class NodeCertified(Event):
    """A node's host key was certified: by hand, when it joined, or when it renewed (``how``)."""

    code: ClassVar[str] = "node.certified"
    node_id: Word
    node: Word
    fingerprint: Word
    how: Word


@dataclass(frozen=True, slots=True)
class JoinTokenMade(Event):
    """A token was made with which one host may join. ``name`` may be a pattern; None: any name."""

    code: ClassVar[str] = "join_token.made"
    name: Word | None
    labels: Mapping[Word, Word]
    replace: bool
    expires: Moment


@dataclass(frozen=True, slots=True)
class JoinDenied(Event):
    """A host tried to join or to renew, and was refused."""

    code: ClassVar[str] = "join.denied"
    node: Text
    source: Word
    reason: Word


# --- bastions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BastionTokenMade(Event):
    """A token was made with which one bastion may enrol."""

    code: ClassVar[str] = "bastion_token.made"
    expires: Moment


@dataclass(frozen=True, slots=True)
class BastionEnrolled(Event):
    """A bastion enrolled, with these keys."""

    code: ClassVar[str] = "bastion.enrolled"
    bastion_id: Word
    bastion: Word
    host_key: Word
    recording_key: Word


@dataclass(frozen=True, slots=True)
class BastionRenewed(Event):
    """A bastion got a new client certificate for the key it has."""

    code: ClassVar[str] = "bastion.renewed"
    bastion_id: Word
    bastion: Word


@dataclass(frozen=True, slots=True)
class BastionDenied(Event):
    """Somebody tried to enrol a bastion, or spoke as one, and was refused."""

    code: ClassVar[str] = "bastion.denied"
    bastion: Text
    source: Word
    reason: Word


@dataclass(frozen=True, slots=True)
class BastionLost(Event):
    """A bastion worker that carries sessions has not been heard of for ``seconds``."""

    code: ClassVar[str] = "bastion.lost"
    bastion: Word
    worker: Word
    seconds: int
    sessions: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class BastionReturned(Event):
    """A bastion worker that was lost is heard again."""

    code: ClassVar[str] = "bastion.returned"
    bastion: Word
    worker: Word


# --- sessions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionStarted(Event):
    """A session was allowed and its target certificate decided. ``grants`` says which grant gave each action."""

    code: ClassVar[str] = "session.started"
    session: Word
    user: Word
    node: Word
    node_id: Word
    login: Word
    way: Word
    source: Word
    bastion: Word
    user_serial: int
    target_serial: int
    grants: Mapping[Word, Word]
    bound: bool = True


@dataclass(frozen=True, slots=True)
class SessionDenied(Event):
    """A proven person asked for a session and the roles or a lock said no. ``denial`` is the stable code."""

    code: ClassVar[str] = "session.denied"
    user: Word
    node: Text
    login: Text
    way: Word
    source: Word
    bastion: Word
    denial: Word
    reason: Text


@dataclass(frozen=True, slots=True)
class SessionProofFailed(Event):
    """A bastion asked for a session with a proof that does not hold. Never happens to an honest bastion."""

    code: ClassVar[str] = "session.proof_failed"
    bastion: Word
    node: Text
    login: Text
    source: Text
    reason: Word
    detail: Text | None = None


@dataclass(frozen=True, slots=True)
class SessionChannel(Event):
    """A channel began to do something. ``kind`` is ``shell``, ``exec``, ``sftp`` or ``scp``."""

    code: ClassVar[str] = "session.channel"
    session: Word
    channel: int
    kind: Word
    action: Word
    pty: bool
    command: Command | None = None


@dataclass(frozen=True, slots=True)
class SessionRefused(Event):
    """Inside a session something was asked for that is not permitted or not known."""

    code: ClassVar[str] = "session.refused"
    session: Word
    channel: int | None
    request: Text
    reason: Text


@dataclass(frozen=True, slots=True)
class SessionFile(Event):
    """A file was read, written or changed. ``sha256`` and ``size`` are of what passed, where that is all of it."""

    code: ClassVar[str] = "session.file"
    session: Word
    channel: int
    operation: Word
    path: Path
    target: Path | None = None
    """The second path of a rename or a link."""
    size: int | None = None
    sha256: Digest | None = None
    outcome: Word = "ok"


@dataclass(frozen=True, slots=True)
class SessionUnrecorded(Event):
    """The recorder could not keep what passed; the session was ended."""

    code: ClassVar[str] = "session.unrecorded"
    session: Word
    reason: Text


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """A session is over. ``how``: ``closed``, ``terminated``, ``locked``, ``crash``, …"""

    code: ClassVar[str] = "session.ended"
    session: Word
    how: Word
    reason: Text | None = None


@dataclass(frozen=True, slots=True)
class SessionSealed(Event):
    """The authority countersigned the manifest with this SHA-256. ``attested``: it heard all hashes before."""

    code: ClassVar[str] = "session.sealed"
    session: Word
    manifest: Digest
    parts: int
    attested: bool


@dataclass(frozen=True, slots=True)
class SessionAttestMissing(Event):
    """Alarm: a live session has sent no hashes of its recording for ``seconds``."""

    code: ClassVar[str] = "session.attest_missing"
    session: Word
    seconds: int


@dataclass(frozen=True, slots=True)
class SessionAttestBroken(Event):
    """Alarm: a manifest does not go on from the hashes that were heard while the session was live."""

    code: ClassVar[str] = "session.attest_broken"
    session: Word
    problem: Text


@dataclass(frozen=True, slots=True)
class SessionLeaseEnded(Event):
    """A session ended itself, because the authority was out of reach for longer than its lease."""

    code: ClassVar[str] = "session.lease_ended"
    session: Word
    seconds: int


@dataclass(frozen=True, slots=True)
class SessionTerminated(Event):
    """The authority ordered a live session to end: an administrator, a lock, a role, an expiry (``cause``)."""

    code: ClassVar[str] = "session.terminated"
    session: Word
    by: Word
    cause: Word
    reason: Text


@dataclass(frozen=True, slots=True)
class SessionRecovered(Event):
    """A recording that a crash had left open was sealed. ``unattested``: bytes beyond the last hash heard."""

    code: ClassVar[str] = "session.recovered"
    session: Word
    unattested: int
    cut: int = 0
    """Bytes of a torn last line or frame that could not be kept."""


# --- locks and failures ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LockAdded(Event):
    """An administrator said no, at once, to all that the lock names."""

    code: ClassVar[str] = "lock.added"
    lock: Word
    reason: Text
    user: Word | None = None
    node: Word | None = None
    role: Word | None = None
    login: Word | None = None
    expires: Moment | None = None


@dataclass(frozen=True, slots=True)
class LockRemoved(Event):
    """A lock was taken away."""

    code: ClassVar[str] = "lock.removed"
    lock: Word


@dataclass(frozen=True, slots=True)
class AuthFailed(Event):
    """A bastion turned an SSH client away before any session.

    ``count`` > 1 stands for so many alike; an empty ``user`` or ``source`` among them for several.
    """

    code: ClassVar[str] = "auth.failed"
    bastion: Word
    user: Text
    source: Word
    reason: Word
    count: int = 1


@dataclass(frozen=True, slots=True)
class UpstreamHostkeyFailed(Event):
    """A node showed a host key that is not registered for it. Nothing was sent to it."""

    code: ClassVar[str] = "upstream.hostkey_failed"
    session: Word
    node: Word
    expected: tuple[Word, ...]
    shown: Word
    reason: Text


@dataclass(frozen=True, slots=True)
class UpstreamFailed(Event):
    """A node could not be reached, or did not let us in."""

    code: ClassVar[str] = "upstream.failed"
    session: Word
    node: Word
    reason: Text


# --- what auditors do -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordingListed(Event):
    """Somebody looked at the list of recordings."""

    code: ClassVar[str] = "recording.listed"
    by: Word
    count: int


@dataclass(frozen=True, slots=True)
class RecordingViewed(Event):
    """Somebody played a recording."""

    code: ClassVar[str] = "recording.viewed"
    session: Word
    by: Word


@dataclass(frozen=True, slots=True)
class RecordingExported(Event):
    """Somebody took a recording away, with its signatures."""

    code: ClassVar[str] = "recording.exported"
    session: Word
    by: Word


@dataclass(frozen=True, slots=True)
class RecordingVerified(Event):
    """Somebody verified a recording through the authority."""

    code: ClassVar[str] = "recording.verified"
    session: Word
    by: Word
    ok: bool
    problem: Text | None = None


@dataclass(frozen=True, slots=True)
class RecordingDenied(Event):
    """Somebody asked for a recording that they may not read, or that does not exist."""

    code: ClassVar[str] = "recording.denied"
    session: Text
    by: Word


@dataclass(frozen=True, slots=True)
class RecordingDeleted(Event):
    """A recording was deleted, because it was older than the retention says (``reason``)."""

    code: ClassVar[str] = "recording.deleted"
    session: Word
    reason: Text
    manifest: Digest | None = None


@dataclass(frozen=True, slots=True)
class RecordingSpaceLow(Event):
    """The disk that holds the recordings is nearly full."""

    code: ClassVar[str] = "recording.space_low"
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class AuditExported(Event):
    """Somebody read the audit log, from this record on."""

    code: ClassVar[str] = "audit.exported"
    by: Word
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class AuditVerified(Event):
    """Somebody had the chain of the audit log checked."""

    code: ClassVar[str] = "audit.verified"
    by: Word
    records: int
    ok: bool


EVENTS: Mapping[str, type[Event]] = types.MappingProxyType(
    {kind.code: kind for kind in Event.__subclasses__() if "__slots__" in vars(kind)}  # not the drafts of dataclass()
)
"""Every event by its code. Closed: what is not here is not an event."""

BASTION_EVENTS = frozenset(
    kind.code
    for kind in (
        AuthFailed,
        SessionChannel,
        SessionRefused,
        SessionFile,
        SessionUnrecorded,
        SessionLeaseEnded,
        SessionRecovered,
        UpstreamFailed,
        UpstreamHostkeyFailed,
        RecordingDeleted,
        RecordingSpaceLow,
    )
)
"""What a bastion may report. The rest only the authority can know."""


# --- in and out -----------------------------------------------------------------------------------------------


def record(event: Event) -> dict[str, object]:
    """The fields of *event* as JSON values: every field is there, None included."""
    return {name: _plain(getattr(event, name)) for name in _kinds(type(event))}


def parse(code: str, fields: Mapping[str, object]) -> Event:
    """The event that *code* and *fields* say. Strict: every field, no other, each of its type and within its bounds."""
    kind = EVENTS.get(code)
    if kind is None:
        raise AuditError(f"no event has the code {_quoted(code)}")
    kinds = _kinds(kind)
    for name in fields:
        if name not in kinds:
            raise AuditError(f"{code}: unknown field {_quoted(name)}, expected {', '.join(kinds) or 'none'}")
    for name in kinds:
        if name not in fields:
            raise AuditError(f"{code}: field {name} is missing")
    return kind(**{name: _checked(kinds[name], fields[name], f"{code}: {name}", cut=False) for name in kinds})


def parse_from_bastion(code: str, fields: Mapping[str, object]) -> Event:
    """Like ``parse``, for an event that a bastion sent: it may report what only it sees, and nothing else."""
    if code in EVENTS and code not in BASTION_EVENTS:
        raise AuditError(f"a bastion may not report {code}")
    return parse(code, fields)


def text(value: str | bytes, most: int = 1_024) -> str:
    """*value* as text that an event takes: bytes that are not UTF-8 as ``\\xNN``, a long one cut with a note."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates
    if len(value) <= most:
        return value
    note = f"…[{len(value)} characters]"
    return value[: most - len(note)] + note


def moment(at: datetime) -> str:
    """*at* as an event and the chain write it: UTC, microseconds, ``Z``."""
    if at.tzinfo is None:
        raise AuditError("a time without a zone")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def visible(value: str) -> str:
    """*value* for a terminal or a page: what could move the cursor, hide or turn text around is escaped."""
    return "".join(
        one if one.isprintable() and unicodedata.category(one) not in _UNSEEN else one.encode("unicode_escape").decode()
        for one in value
    )


def harmless(_logger: object, _method: str, words: Mapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: what somebody else wrote cannot act on the terminal of whoever reads the log."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in words.items()}


_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})


# --- the chain ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the log, as it is stored."""

    seq: int
    at: datetime
    code: str
    actor: str
    fields: Mapping[str, object]
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The first record that does not fit, and why."""

    seq: int
    problem: str


def canonical(fields: Mapping[str, object]) -> str:
    """*fields* as the one JSON text that is hashed."""
    return json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


def line(seq: int, at: datetime, code: str, actor: str, fields: Mapping[str, object]) -> str:
    """The canonical line of one record."""
    return canonical({"actor": actor, "at": moment(at), "code": code, "fields": dict(fields), "seq": seq})


def chain(prev: str, seq: int, at: datetime, code: str, actor: str, fields: Mapping[str, object]) -> str:
    """The hash of one record that follows the record with the hash *prev*."""
    return hashlib.sha256(f"{prev}\n{line(seq, at, code, actor, fields)}".encode("ascii")).hexdigest()


def append(last: Entry | None, event: Event, *, at: datetime, actor: str) -> Entry:
    """The entry that follows *last* (None: the first one) and says *event*."""
    seq, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
    told = record(event)
    return Entry(seq, at, event.code, actor, told, prev, chain(prev, seq, at, event.code, actor, told))


def verify_chain(entries: Iterable[Entry], *, first: int = 1, prev: str = GENESIS) -> Broken | None:
    """Where the chain breaks first: a record altered, taken out, put in or moved. None: it holds.

    Whether the end was cut off only somebody who has seen a later hash can tell. For a long log, call it piece by
    piece: *first* and *prev* are then the number after, and the hash of, the last record of the piece before.
    """
    expected = first
    for entry in entries:
        if entry.seq != expected:
            return Broken(expected, f"record {expected} is missing: {entry.seq} stands in its place")
        if entry.prev != prev:
            return Broken(entry.seq, "it does not name the hash of the record before it")
        try:
            told = chain(prev, entry.seq, entry.at, entry.code, entry.actor, entry.fields)
        except (AuditError, TypeError, ValueError) as error:
            return Broken(entry.seq, f"it cannot be hashed: {error}")
        if told != entry.hash:
            return Broken(entry.seq, "its content does not have the hash that it names")
        expected, prev = entry.seq + 1, entry.hash
    return None


# --- types of fields ------------------------------------------------------------------------------------------


def _hints(kind: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: hints[one.name] for one in fields(kind)}


_KINDS = {code: _hints(kind) for code, kind in EVENTS.items()}


def _kinds(kind: type[Event]) -> dict[str, Any]:
    return _KINDS[kind.code]


def _checked(kind: Any, value: object, what: str, *, cut: bool) -> object:
    """*value* if it is of *kind*, in the form an event holds; AuditError otherwise."""
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        inner = next(one for one in get_args(kind) if one is not type(None))
        return None if value is None else _checked(inner, value, what, cut=cut)
    if origin is tuple:
        return _items(get_args(kind)[0], value, what, cut=cut)
    if origin is not None and issubclass(origin, Mapping):
        return _pairs(get_args(kind), value, what, cut=cut)
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise AuditError(f"{what} is {_quoted(value)}, expected true or false")
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER:
            return int(value)
        raise AuditError(f"{what} is {_quoted(value)}, expected a whole number of at least 0")
    return _string(kind.__metadata__[0], value, what, cut=cut)


def _string(rule: _Word | _Text | _Shape, value: object, what: str, *, cut: bool) -> str:
    if not isinstance(value, str):
        raise AuditError(f"{what} is {_quoted(value)}, expected text")
    match rule:
        case _Shape(pattern):
            if not pattern.match(value):
                raise AuditError(f"{what} is {_quoted(value)}, expected the shape {pattern.pattern}")
            return str(value)
        case _Text(most) if cut:
            return text(value, most)
    if len(value) > rule.most:
        raise AuditError(f"{what} is longer than {rule.most} characters")
    if not _encodable(value):
        raise AuditError(f"{what} is not Unicode text")
    return str(value)


def _items(kind: Any, value: object, what: str, *, cut: bool) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise AuditError(f"{what} is {_quoted(value)}, expected a list")
    if len(value) > MOST_ITEMS:
        raise AuditError(f"{what} has more than {MOST_ITEMS} items")
    return tuple(_checked(kind, one, f"{what}[{index}]", cut=cut) for index, one in enumerate(value))


def _pairs(kinds: tuple[Any, ...], value: object, what: str, *, cut: bool) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise AuditError(f"{what} is {_quoted(value)}, expected an object")
    if len(value) > MOST_ITEMS:
        raise AuditError(f"{what} has more than {MOST_ITEMS} entries")
    return types.MappingProxyType(
        {
            _checked(kinds[0], key, f"{what}: a key", cut=cut): _checked(kinds[1], one, f"{what}: a value", cut=cut)
            for key, one in value.items()
        }
    )


def _plain(value: object) -> object:
    match value:
        case tuple():
            return list(value)
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
        case _:
            return value


def _encodable(value: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in value)


def _quoted(value: object) -> str:
    """A value in a message: ASCII, and short."""
    shown = ascii(value[:40]) if isinstance(value, str) else ascii(value) if isinstance(value, int | None) else ""
    return shown[:60] if shown else f"a {type(value).__name__}"
