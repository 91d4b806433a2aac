"""
Shapes that cross HTTP, shared by the authority, the bastion and the commands. Strict: unknown fields are refused.

Bytes travel as standard base64 text; times as RFC 3339 in UTC; spans as whole seconds; public keys and
certificates as one OpenSSH line (``ssh-ed25519 AAAA…``). Paths and their shapes are listed in docs/reference/api.md.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer


def _bytes(value: object) -> object:
    """Base64 text from outside becomes bytes; bytes from our own code stay what they are."""
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


RawBytes = Annotated[
    bytes,
    BeforeValidator(_bytes),
    PlainSerializer(lambda value: base64.b64encode(value).decode("ascii"), return_type=str, when_used="json"),
]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Line = Annotated[str, Field(min_length=1, max_length=16_384)]
Blob = Annotated[RawBytes, Field(max_length=65_536)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]


OWN_NAME = "localhost"
"""The TLS server name that every certificate under the authority's root carries, and the operator's own never does."""


class Shape(BaseModel):
    """Base of all shapes: frozen, and an unknown field is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Shape):
    """Every error answer: a stable code, one sentence, perhaps what to do next."""

    error: str
    message: str
    hint: str | None = None


# --- people ---------------------------------------------------------------------------------------------------


class Challenge(Shape):
    """A nonce to be signed once, within two minutes."""

    nonce: str


class LoginRequest(Shape):
    """Password sign-in. ``possession`` is an armored SSHSIG over ``nonce``, namespace ``bartizan-enrol``."""

    user: Name
    password: Annotated[str, Field(min_length=1, max_length=1024)]
    public_key: Line
    nonce: Annotated[str, Field(max_length=128)]
    possession: Annotated[str, Field(max_length=8192)]
    ttl_seconds: int | None = None
    code: Annotated[str, Field(max_length=64)] | None = None
    """A one-time code or a recovery code, when the person has a second factor."""


class LoginMethod(Shape):
    """One way to sign in that the operator enabled."""

    kind: Literal["password", "provider"]
    name: str
    title: str


class LoginMethods(Shape):
    methods: list[LoginMethod]


class ExchangeRequest(Shape):
    """A sign-in that a person finished in a browser, turned into a certificate: once, with the PKCE verifier.

    ``grant`` is the code that came to the loopback address (RFC 8252), or the device code (RFC 8628).
    """

    grant: Annotated[str, Field(min_length=1, max_length=256)]
    verifier: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{43,128}$")]
    public_key: Line
    nonce: Annotated[str, Field(max_length=128)]
    possession: Annotated[str, Field(max_length=8192)]
    ttl_seconds: int | None = None


class DeviceRequest(Shape):
    """Ask for a sign-in that is approved on another machine. ``challenge`` is PKCE's S256 (RFC 7636 §4.2)."""

    challenge: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    host: Annotated[str, Field(min_length=1, max_length=255)]
    """What the asking machine calls itself; shown to whoever approves."""


class DeviceStarted(Shape):
    grant: str
    user_code: str
    url: str
    url_with_code: str
    expires: datetime
    interval_seconds: int


class DevicePoll(Shape):
    grant: Annotated[str, Field(min_length=1, max_length=256)]


class DeviceState(Shape):
    """``slow_down``: wait five seconds longer between polls from now on (RFC 8628 §3.5)."""

    state: Literal["pending", "slow_down", "approved", "denied", "over"]


class FactorRequest(Shape):
    """Begin to set up a second factor before one is signed in, where a role wants one."""

    user: Name
    password: Annotated[str, Field(min_length=1, max_length=1024)]


class FactorBegun(Shape):
    """A secret for an authenticator app: base32, and the same as an ``otpauth://`` URI for a QR code."""

    secret: str
    uri: str


class FactorCode(Shape):
    code: Annotated[str, Field(min_length=1, max_length=64)]


class FactorView(Shape):
    confirmed: bool
    created: datetime | None
    recovery_codes_left: int


class RecoveryCodes(Shape):
    """Shown once."""

    codes: list[str]


class SignOut(Shape):
    everywhere: bool = False


class ReachableNode(Shape):
    """A node the person may reach, with the logins granted there, own name first."""

    name: str
    labels: dict[str, str]
    logins: list[str]
    actions: list[str]


class ClusterInfo(Shape):
    """What a client has to know of the cluster. ``bastion_ca`` goes into known_hosts."""

    cluster: str
    ssh_host: str
    ssh_port: int
    web_url: str
    bastion_ca: list[Line]


class LoginAnswer(Shape):
    """A certificate and a token that ends with it. ``note`` says so when the life was cut short."""

    user: str
    roles: list[str]
    certificate: Line
    expires: datetime
    token: str
    cluster: ClusterInfo
    nodes: list[ReachableNode]
    note: str | None = None
    recovery_codes: list[str] = []
    """Once, when this sign-in confirmed a new second factor."""


class Me(Shape):
    user: str
    roles: list[str]
    administrator: bool
    certificate_expires: datetime | None
    cluster: ClusterInfo
    nodes: list[ReachableNode]
    provider: str | None = None
    """The identity provider that vouches for the person; None for a local account."""


# --- administration -------------------------------------------------------------------------------------------


class NewUser(Shape):
    name: Name
    roles: list[Name] = []
    password: Annotated[str, Field(max_length=1024)] | None = None


class User(Shape):
    name: str
    roles: list[str]
    disabled: bool
    has_password: bool
    created: datetime
    provider: str | None = None
    """The identity provider that vouches for them; None for a local account."""
    traits: dict[str, list[str]] = {}
    refused: str | None = None
    """Why the provider no longer vouches for them."""
    has_factor: bool = False


class AddedUser(Shape):
    user: User
    invitation_url: str | None = None


class UserChange(Shape):
    disabled: bool | None = None
    roles: list[Name] | None = None


class HandingOver(Shape):
    """The identity provider that shall vouch for somebody who had a local account."""

    provider: Name


class NewPassword(Shape):
    """No password: an invitation link is made instead."""

    password: Annotated[str, Field(max_length=1024)] | None = None


class RolesFile(Shape):
    """A roles file as written; errors name its lines."""

    text: Annotated[str, Field(max_length=1_000_000)]
    file: Annotated[str, Field(max_length=256)] = "roles.yaml"
    dry_run: bool = False


class RolesApplied(Shape):
    added: list[str]
    changed: list[str]
    removed: list[str]
    tests_passed: int
    ended_sessions: int


class ProviderFile(Shape):
    """A provider's file as written; errors name its lines. No ``secret``: the stored one is kept."""

    text: Annotated[str, Field(max_length=100_000)]
    file: Annotated[str, Field(max_length=256)] = "idp.yaml"
    secret: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    dry_run: bool = False


class ProviderApplied(Shape):
    name: str
    created: bool
    callback_url: str
    """What the provider must be told as the redirect URI."""
    notes: list[str] = []


class ProviderView(Shape):
    name: str
    title: str
    kind: str
    issuer: str
    client: str
    callback_url: str
    has_secret: bool
    users: int
    unreachable_since: datetime | None
    revision: int
    applied: datetime
    applied_by: str
    text: str


class ProviderTrial(Shape):
    """What to test with: an ID token that somebody pasted, or nothing but the provider itself."""

    token: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    trial: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """What came of this ``TrialLink``, instead; a step with ``ok`` None until somebody has come back by it."""


class TrialStep(Shape):
    """One thing that was tried. ``ok`` None: not tried."""

    what: str
    ok: bool | None
    detail: str


class TrialPerson(Shape):
    """Whom a token would sign in, and the line of the file behind each part."""

    user: str
    roles: list[str]
    traits: dict[str, list[str]]
    lines: list[str]


class ProviderTested(Shape):
    ok: bool
    steps: list[TrialStep]
    person: TrialPerson | None = None


class Recheck(Shape):
    """Whom to ask the provider about; everybody whom it vouches for when absent."""

    user: Name | None = None


class Rechecked(Shape):
    """By person: ``same``, ``changed``, ``refused``, ``unreachable`` or ``nothing_to_ask_with``."""

    outcomes: dict[str, str]


class TrialLink(Shape):
    """A page on which one signs in with the provider and sees what it would give; nobody is signed in by it."""

    url: str
    trial: str
    expires: datetime


class ExplainRequest(Shape):
    user: Name
    node: Name
    login: str | None = None
    action: str | None = None


class Explanation(Shape):
    allowed: bool
    code: str | None = None
    reason: str
    hint: str | None = None
    lines: list[str]
    """Each role and grant that was looked at and what it said, in order."""


class NewNode(Shape):
    name: Name
    address: Annotated[str, Field(max_length=255)]
    labels: dict[str, str] = {}
    host_keys: list[Line] = []
    """Keys pinned by the administrator, for nodes without a host certificate."""


class NodeView(Shape):
    id: str
    name: str
    address: str
    labels: dict[str, str]
    host_keys: list[str]
    pinned: bool
    certificate_expires: datetime | None
    created: datetime


class CertifyNode(Shape):
    public_key: Line


class HostCertificate(Shape):
    certificate: Line
    expires: datetime


class NodeTrust(Shape):
    """What a node's sshd needs to know."""

    id: str
    name: str
    target_ca: list[Line]


class NewJoinToken(Shape):
    name: str | None = None
    """Name or glob that the joining node must have; any when absent."""
    labels: dict[str, str] = {}
    replace: bool = False
    ttl_seconds: Annotated[int, Field(ge=60, le=86_400)] = 3600


class JoinToken(Shape):
    token: str
    expires: datetime


class JoinKey(Shape):
    """One host key; ``possession`` is an SSHSIG over the challenge, namespace ``bartizan-join``."""

    public_key: Line
    possession: Annotated[str, Field(max_length=8192)]


class JoinRequest(Shape):
    token: Annotated[str, Field(max_length=256)]
    nonce: Annotated[str, Field(max_length=128)]
    name: Name
    address: Annotated[str, Field(max_length=255)]
    keys: Annotated[list[JoinKey], Field(min_length=1, max_length=8)]


class RenewRequest(Shape):
    """Renew host certificates: the node proves its registered keys anew, no token."""

    node: Name
    nonce: Annotated[str, Field(max_length=128)]
    keys: Annotated[list[JoinKey], Field(min_length=1, max_length=8)]


class JoinAnswer(Shape):
    node: NodeTrust
    certificates: list[HostCertificate]
    """In the order of the keys that were sent."""


class Issued(Shape):
    ca: str
    serial: int
    key_id: str
    principals: list[str]
    valid_after: datetime
    valid_before: datetime
    state: str
    """``stored`` (not signed), ``issued``, ``void`` or ``revoked``."""
    user: str | None = None


class NewLock(Shape):
    reason: Reason
    user: str | None = None
    node: str | None = None
    role: str | None = None
    login: str | None = None
    ttl_seconds: Annotated[int, Field(ge=1)] | None = None


class LockView(NewLock):
    id: str
    created: datetime
    expires: datetime | None = None


class Termination(Shape):
    reason: Reason


class SessionView(Shape):
    """One session; ``how`` is None while it is live."""

    id: str
    user: str
    node: str
    login: str
    way: str
    source: str
    started: datetime
    ended: datetime | None
    how: str | None
    recording: bool
    """Whether the caller may read its recording and it is still there."""


class AuditRecord(Shape):
    seq: int
    at: datetime
    code: str
    actor: str
    fields: dict[str, object]
    prev: str
    hash: str


class AuditVerdict(Shape):
    ok: bool
    records: int
    first_bad: int | None = None
    problem: str | None = None


# --- bastions -------------------------------------------------------------------------------------------------


class NewBastionToken(Shape):
    """With ``name``, the token is for the bastion of that name alone, and may give it new keys."""

    name: Name | None = None


class BastionEnrolment(Shape):
    """Once, with a one-use token. Keys are made on the bastion; only public halves travel."""

    token: Annotated[str, Field(max_length=256)]
    name: Name
    host_key: Line
    recording_key: Line
    tls_request: Annotated[str, Field(max_length=8192)]
    """PEM PKCS#10 request for the client certificate of mutual TLS."""
    egress: list[str] = []
    """Addresses from which this bastion reaches nodes, for ``source-address``."""


class BastionIdentity(Shape):
    id: str
    tls_certificate: str
    tls_root: str


class BastionRenewal(Shape):
    """A new client certificate for the enrolled key; answered with a ``BastionIdentity``."""

    tls_request: Annotated[str, Field(max_length=8192)]


class TrustAnchors(Shape):
    """What a bastion checks with. Public keys only."""

    cluster: str
    user_ca: list[Line]
    host_ca: list[Line]
    bastion_ca: list[Line]
    names: list[str]
    """Names that the bastion's own host certificate carries: public host, cluster name."""
    ssh_port: int
    max_user_ttl_seconds: int = 86_400


class ShownNames(Shape):
    """Ask for host certificates of the bastion CA: one per name; an empty list = the bastion's own names."""

    names: Annotated[list[Name], Field(max_length=64)]


class ShownCertificates(Shape):
    certificates: list[Line]
    expires: datetime


class Transcript(Shape):
    """A key exchange, enough to compute H again (RFC 4253 §8, RFC 5656 §4, RFC 8731 §3.1, ML-KEM hybrid draft).

    ``k`` is the shared secret exactly as it was hashed: an encoded mpint, or an encoded string for hybrids.
    """

    kex: str
    v_c: Blob
    v_s: Blob
    i_c: Blob
    i_s: Blob
    k_s: Blob
    q_c: Blob
    q_s: Blob
    k: Blob


class SessionRequest(Shape):
    """Who, from where, to which node and login, with what proof.

    ``auth_request`` is the SSH_MSG_USERAUTH_REQUEST up to and without the signature field (RFC 4252 §7);
    ``possession`` is the raw signature of the session key over ``b"bartizan-session\\0" + H``.
    """

    worker: Name
    way: Literal["config", "jump", "username"]
    node: Annotated[str, Field(max_length=64)]
    login: Annotated[str, Field(max_length=64)]
    source: Annotated[str, Field(max_length=64)]
    transcript: Transcript
    auth_request: Blob
    signature: Blob
    session_key: Line
    possession: Blob


class GrantedAction(Shape):
    """One permitted action and the conditions of the grant that allowed it."""

    action: str
    role: str
    max_session_seconds: int | None
    idle_seconds: int | None
    on_expiry: str
    record: str
    record_input: bool
    record_limit: int
    lease_seconds: int = 60


class SessionAllowed(Shape):
    decision: Literal["allow"] = "allow"
    session: str
    user: str
    node: str
    node_id: str
    login: str
    address: str
    host_keys: list[Line]
    """Registered keys of the node. ``pinned``: without certificates, these very keys."""
    pinned: bool
    target_certificate: Line
    actions: list[GrantedAction]
    certificate_expires: datetime
    started: datetime


class SessionDenied(Shape):
    decision: Literal["deny"] = "deny"
    code: str
    reason: str
    hint: str | None = None


class RecordingHead(Shape):
    """How far a live recording has come.

    ``closed`` parts are chained to ``chain``; of the open parts, ``open`` says how many bytes are on disk with
    which SHA-256 so far.
    """

    session: str
    closed: int
    chain: str
    open: dict[str, tuple[int, str]]


class BastionEvent(Shape):
    """An event for the audit log, seen by a bastion. ``id`` makes sending it twice harmless."""

    id: str
    at: datetime
    code: str
    fields: dict[str, object]


class SyncRequest(Shape):
    worker: Name
    heads: Annotated[list[RecordingHead], Field(max_length=10_000)] = []
    events: Annotated[list[BastionEvent], Field(max_length=1_000)] = []
    wait_ms: Annotated[int, Field(ge=0, le=2_000)] = 0
    """The authority may hold the answer this long; an order ends the wait."""


class Order(Shape):
    """``end``: end this session and tell the person ``reason``."""

    session: str
    kind: Literal["end"] = "end"
    code: str
    reason: str


class SyncAnswer(Shape):
    beacon: str
    orders: list[Order]
    lease_seconds: int
    trust_revision: int
    """Changes when TrustAnchors or the shown certificates should be fetched again."""


class SessionEnd(Shape):
    """The sealed manifest (exact bytes of manifest.json) and how it ended."""

    manifest: Annotated[RawBytes, Field(max_length=16_000_000)]
    how: str


class Countersignature(Shape):
    """Armored SSHSIG of the authority over the manifest, namespace ``bartizan-recording``."""

    signature: str
