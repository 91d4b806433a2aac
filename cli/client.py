"""
The one way from a command to the authority: HTTPS under a pinned root, or the Unix socket in the data folder.

Shapes are those of ``ca/wire.py``; answers that say no become the errors of ``ca/errors.py``. Nothing here prints or
asks.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import re
import shlex
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import TypeAdapter, ValidationError

from ca import wire
from ca.errors import (
    AccessDenied,
    BartizanError,
    Conflict,
    InvalidInput,
    NotFound,
    NotSignedIn,
    SignerFault,
    TooLarge,
    TooMany,
    Unavailable,
)
from cli import clock
from cli.profile import Home

T = TypeVar("T")
Answer = TypeVar("Answer", bound=wire.Shape)

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
ROOT_LIMIT = 64 * 1024
SOCKET_LIMIT = 107
"""Bytes in the path of a Unix socket on Linux (unix(7)), without the final zero."""

REFUSALS: Mapping[int, type[BartizanError]] = {
    400: InvalidInput,
    401: NotSignedIn,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidInput,
    429: TooMany,
    500: SignerFault,
    503: Unavailable,
}


def signed_in(home: Home) -> Authority:
    """The authority that the stored sign-in belongs to."""
    profile = home.profile()
    return Authority.over_https(profile.authority, root=home.root(), token=home.token(), pin=profile.pin)


def pinned_root(authority: str, pin: str) -> str:
    """The PEM root certificate of *authority*, proven by *pin*: what travels before this check is public.

    Everything later must come over a connection that trusts exactly this root.
    """
    pem = _unproven_root(authority)
    found = pin_of(pem)
    if found != _checked_pin(pin):
        raise AccessDenied(
            f"the authority at {authority} shows the pin {found}, not {pin.strip()}; nothing was sent to it",
            hint="compare with `bartizan pin`, typed on the authority's own machine",
            code="pin_mismatch",
        )
    return pem


def pin_of(pem: str) -> str:
    """``sha256:<hex>`` over the SubjectPublicKeyInfo of the certificate in *pem*; there must be exactly one."""
    try:
        roots = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise Unavailable("what answered is no authority: it gave no certificate") from None
    if len(roots) != 1:
        raise Unavailable(f"what answered is no authority: it gave {len(roots)} certificates instead of one")
    key = roots[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(key).hexdigest()


class Authority(AbstractContextManager["Authority"]):
    """A connection to the authority. Made by ``over_https`` or ``over_socket``; closed like a file."""

    def __init__(self, http: httpx.Client, place: str, *, pin: str | None = None) -> None:
        self._http = http
        self._pin = pin
        self.place = place
        self.ahead: timedelta | None = None
        """How far the authority's clock was ahead of ours at its last answer, as far as it told."""

    @classmethod
    def over_https(cls, authority: str, *, root: str | None, token: str | None = None, pin: str | None = None) -> Self:
        """HTTPS that trusts exactly *root* (PEM), or what the system trusts when there is none.

        *pin* is what proved *root* earlier: it only helps to say what is wrong when another root answers.
        """
        context = ssl.create_default_context(cadata=root)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        http = _http(checked_url(authority), token, verify=context)
        if root is not None and not _is_ip(urlsplit(authority).hostname or ""):
            http.event_hooks = {"request": [_asking_for_our_own]}
        return cls(http, authority, pin=pin)

    @classmethod
    def over_socket(cls, data: Path) -> Self:
        """The Unix socket in the data folder, with the administrator's token that lies beside it."""
        path = data / "authority.sock"
        if len(os.fsencode(path)) > SOCKET_LIMIT:
            raise InvalidInput(
                f"the path of the socket is longer than the system allows: {path}",
                hint="use a shorter --data, or a symbolic link to it",
            )
        try:
            token = (data / "admin.token").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise NotFound(f"no authority has run in {data}", hint=f"bartizan up --data {data}") from None
        except (PermissionError, UnicodeDecodeError):
            raise AccessDenied(f"{data} belongs to somebody else", hint="run this as the authority's user") from None
        transport = httpx.HTTPTransport(uds=str(path))
        return cls(_http("http://localhost", token, transport=transport), str(data))

    def __exit__(self, *details: object) -> None:
        self._http.close()

    # --- people ------------------------------------------------------------------------------------------------

    def cluster(self) -> wire.ClusterInfo:
        return self._call("GET", "/v1/cluster", wire.ClusterInfo)

    def ready(self) -> bool:
        """Whether it answers and all it needs is there."""
        return self._request("GET", "/readyz").is_success

    def now(self) -> datetime:
        """The time by the authority's clock, as far as it told."""
        return datetime.now(UTC) + (self.ahead or timedelta(0))

    def tls_root(self) -> str:
        return self._text("/v1/tls-root")

    def login_methods(self) -> list[wire.LoginMethod]:
        """How one may sign in there; one that does not tell takes passwords alone."""
        try:
            return self._call("GET", "/v1/login/methods", wire.LoginMethods).methods
        except NotFound:
            return [wire.LoginMethod(kind="password", name="password", title="Password")]

    def login_challenge(self) -> wire.Challenge:
        return self._call("POST", "/v1/login/challenge", wire.Challenge)

    def login(self, request: wire.LoginRequest) -> wire.LoginAnswer:
        return self._call("POST", "/v1/login", wire.LoginAnswer, request)

    def device_login(self, request: wire.DeviceRequest) -> wire.DeviceStarted:
        return self._call("POST", "/v1/login/device", wire.DeviceStarted, request)

    def device_state(self, poll: wire.DevicePoll) -> wire.DeviceState:
        return self._call("POST", "/v1/login/device/poll", wire.DeviceState, poll)

    def exchange(self, request: wire.ExchangeRequest) -> wire.LoginAnswer:
        return self._call("POST", "/v1/login/exchange", wire.LoginAnswer, request)

    def logout(self, *, everywhere: bool = False) -> None:
        self._send("POST", "/v1/logout", wire.SignOut(everywhere=True) if everywhere else None)

    def me(self) -> wire.Me:
        return self._call("GET", "/v1/me", wire.Me)

    # --- second factors ----------------------------------------------------------------------------------------

    def factor(self) -> wire.FactorView:
        return self._call("GET", "/v1/me/second-factor", wire.FactorView)

    def begin_factor(self) -> wire.FactorBegun:
        return self._call("POST", "/v1/me/second-factor", wire.FactorBegun)

    def begin_factor_before_login(self, request: wire.FactorRequest) -> wire.FactorBegun:
        return self._call("POST", "/v1/login/second-factor", wire.FactorBegun, request)

    def confirm_factor(self, code: wire.FactorCode) -> wire.RecoveryCodes:
        return self._call("POST", "/v1/me/second-factor/confirmation", wire.RecoveryCodes, code)

    def new_recovery_codes(self, code: wire.FactorCode) -> wire.RecoveryCodes:
        return self._call("POST", "/v1/me/second-factor/recovery-codes", wire.RecoveryCodes, code)

    def remove_factor(self, code: wire.FactorCode) -> None:
        self._send("DELETE", "/v1/me/second-factor", code)

    def trial_link(self, provider: str) -> wire.TrialLink:
        return self._call("POST", f"/v1/idp/{quote(provider, safe='')}/trial-link", wire.TrialLink)

    def recheck(self, provider: str, whom: wire.Recheck) -> wire.Rechecked:
        return self._call("POST", f"/v1/idp/{quote(provider, safe='')}/recheck", wire.Rechecked, whom)

    def hand_over_user(self, name: str, to: wire.HandingOver) -> None:
        self._send("POST", f"/v1/users/{quote(name, safe='')}/handing-over", to)

    def unlink_user(self, name: str) -> None:
        self._send("POST", f"/v1/users/{quote(name, safe='')}/unlinking")

    def reset_factor(self, name: str) -> None:
        self._send("POST", f"/v1/users/{quote(name, safe='')}/second-factor/reset")

    # --- administration ----------------------------------------------------------------------------------------

    def add_user(self, user: wire.NewUser) -> wire.AddedUser:
        return self._call("POST", "/v1/users", wire.AddedUser, user)

    def users(self) -> list[wire.User]:
        return self._list("/v1/users", list[wire.User])

    def change_user(self, name: str, change: wire.UserChange) -> wire.User:
        return self._call("PATCH", f"/v1/users/{quote(name, safe='')}", wire.User, change)

    def set_password(self, name: str, password: wire.NewPassword) -> wire.AddedUser:
        return self._call("POST", f"/v1/users/{quote(name, safe='')}/password", wire.AddedUser, password)

    def roles(self) -> str:
        answer = self._send("GET", "/v1/roles").json()
        return str(answer["text"]) if isinstance(answer, dict) and "text" in answer else ""

    def apply_roles(self, file: wire.RolesFile) -> wire.RolesApplied:
        return self._call("PUT", "/v1/roles", wire.RolesApplied, file)

    def apply_provider(self, file: wire.ProviderFile) -> wire.ProviderApplied:
        return self._call("PUT", "/v1/idp", wire.ProviderApplied, file)

    def providers(self) -> list[wire.ProviderView]:
        return self._list("/v1/idp", list[wire.ProviderView])

    def remove_provider(self, name: str) -> None:
        self._send("DELETE", f"/v1/idp/{quote(name, safe='')}")

    def test_provider(self, name: str, trial: wire.ProviderTrial) -> wire.ProviderTested:
        return self._call("POST", f"/v1/idp/{quote(name, safe='')}/trial", wire.ProviderTested, trial)

    def explain(self, request: wire.ExplainRequest) -> wire.Explanation:
        return self._call("POST", "/v1/access/explain", wire.Explanation, request)

    def add_node(self, node: wire.NewNode) -> wire.NodeView:
        return self._call("POST", "/v1/nodes", wire.NodeView, node)

    def nodes(self) -> list[wire.NodeView]:
        return self._list("/v1/nodes", list[wire.NodeView])

    def remove_node(self, name: str) -> None:
        self._send("DELETE", f"/v1/nodes/{quote(name, safe='')}")

    def certify_node(self, name: str, key: wire.CertifyNode) -> wire.HostCertificate:
        return self._call("POST", f"/v1/nodes/{quote(name, safe='')}/certificate", wire.HostCertificate, key)

    def node_trust(self, name: str) -> wire.NodeTrust:
        return self._call("GET", f"/v1/nodes/{quote(name, safe='')}/trust", wire.NodeTrust)

    def join_token(self, wanted: wire.NewJoinToken) -> wire.JoinToken:
        return self._call("POST", "/v1/join-tokens", wire.JoinToken, wanted)

    def bastion_token(self, wanted: wire.NewBastionToken) -> wire.JoinToken:
        return self._call("POST", "/v1/bastion-tokens", wire.JoinToken, wanted)

    def ca(self, name: str) -> str:
        return self._text(f"/v1/ca/{quote(name, safe='')}")

    def certificates(self) -> list[wire.Issued]:
        return self._list("/v1/certificates", list[wire.Issued])

    def revoke(self, ca: str, serial: int) -> None:
        self._send("POST", f"/v1/certificates/{quote(ca, safe='')}/{serial}/revocation")

    def add_lock(self, lock: wire.NewLock) -> wire.LockView:
        return self._call("POST", "/v1/locks", wire.LockView, lock)

    def locks(self) -> list[wire.LockView]:
        return self._list("/v1/locks", list[wire.LockView])

    def remove_lock(self, id: str) -> None:
        self._send("DELETE", f"/v1/locks/{quote(id, safe='')}")

    def sessions(self, **narrow: str) -> list[wire.SessionView]:
        return self._list("/v1/sessions", list[wire.SessionView], narrow)

    def terminate(self, id: str, reason: wire.Termination) -> None:
        self._send("POST", f"/v1/sessions/{quote(id, safe='')}/termination", reason)

    def audit(self, *, after: int, limit: int) -> list[wire.AuditRecord]:
        return self._list("/v1/audit", list[wire.AuditRecord], {"after": str(after), "limit": str(limit)})

    def verify_audit(self) -> wire.AuditVerdict:
        return self._call("POST", "/v1/audit/verification", wire.AuditVerdict)

    # --- nodes that join ---------------------------------------------------------------------------------------

    def join_challenge(self) -> wire.Challenge:
        return self._call("POST", "/v1/join/challenge", wire.Challenge)

    def join(self, request: wire.JoinRequest) -> wire.JoinAnswer:
        return self._call("POST", "/v1/join", wire.JoinAnswer, request)

    def renew(self, request: wire.RenewRequest) -> wire.JoinAnswer:
        return self._call("POST", "/v1/join/renewal", wire.JoinAnswer, request)

    # --- recordings --------------------------------------------------------------------------------------------

    def recordings(self) -> list[wire.SessionView]:
        return self._list("/v1/recordings", list[wire.SessionView])

    @contextmanager
    def archive(self, id: str, *, purpose: Literal["export", "play", "verify"]) -> Iterator[httpx.Response]:
        """The recording as a tar stream; the authority writes into the audit log what for."""
        path = f"/v1/recordings/{quote(id, safe='')}/archive"
        with self._told_apart(), self._http.stream("GET", path, params={"purpose": purpose}) as answer:
            if answer.status_code != 200:
                answer.read()
                raise self._refusal(answer)
            yield answer

    # --- how it travels ----------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, shape: type[Answer], body: wire.Shape | None = None) -> Answer:
        answer = self._send(method, path, body)
        try:
            return shape.model_validate_json(answer.content)
        except ValidationError as error:
            raise _other_version(error) from None

    def _list(self, path: str, shape: type[T], narrow: Mapping[str, str] | None = None) -> T:
        answer = self._send("GET", path, narrow=narrow)
        try:
            return TypeAdapter(shape).validate_json(answer.content)
        except ValidationError as error:
            raise _other_version(error) from None

    def _text(self, path: str) -> str:
        return self._send("GET", path).text

    def _send(
        self, method: str, path: str, body: wire.Shape | None = None, *, narrow: Mapping[str, str] | None = None
    ) -> httpx.Response:
        answer = self._request(method, path, body, narrow=narrow)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> BartizanError:
        """The error that the authority meant, with the commands in its hint as they are typed here."""
        refused = refusal(answer)
        if refused.hint and not self.place.startswith("https://"):
            typed = f"bartizan --data {shlex.quote(self.place)} "
            refused.hint = re.sub(r"\bbartizan (?=[a-z])", lambda _: typed, refused.hint)
        return refused

    def _request(
        self, method: str, path: str, body: wire.Shape | None = None, *, narrow: Mapping[str, str] | None = None
    ) -> httpx.Response:
        content = None if body is None else body.model_dump_json().encode()
        headers = {} if body is None else {"content-type": "application/json"}
        with self._told_apart():
            answer = self._http.request(method, path, content=content, headers=headers, params=narrow)
        self.ahead = clock.difference(answer.headers.get("date"), datetime.now(UTC))
        return answer

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """What goes wrong on the way, said so that a person knows what to do about it."""
        try:
            yield
        except httpx.ConnectError as error:
            raise _unreachable(self.place, error, pin=self._pin) from None
        except httpx.TimeoutException:
            raise Unavailable(f"the authority at {self.place} does not answer in time") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the connection to the authority at {self.place} broke: {error}") from None


def checked_url(authority: str) -> str:
    """*authority* as ``https://host[:port]``. Raises InvalidInput: passwords travel over HTTPS alone."""
    parts = urlsplit(authority)
    try:
        wrong = parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or parts.path.strip("/"):
        raise InvalidInput(f"{authority!r} is not an authority", hint="write it as https://HOST:PORT")
    return f"https://{parts.netloc}"


def refusal(answer: httpx.Response) -> BartizanError:
    """The error that the authority meant."""
    kind = REFUSALS.get(answer.status_code, Unavailable)
    try:
        problem = wire.Problem.model_validate_json(answer.content)
    except ValidationError:
        return kind(f"the authority answered with status {answer.status_code} and no reason")
    hint = problem.hint or ("bart login" if kind is NotSignedIn else None)
    return kind(problem.message, hint=hint, code=problem.error)


def _http(
    url: str,
    token: str | None,
    *,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client that follows no redirect and takes neither proxy nor trust from the environment."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(
        base_url=url, headers=headers, timeout=TIMEOUT, verify=verify, transport=transport, trust_env=False
    )


def _asking_for_our_own(request: httpx.Request) -> None:
    """Ask in TLS for the certificate under the pinned root: for its public name an authority may show the operator's.

    The root signs for this one authority alone, so any name of it proves as much as another.
    """
    request.extensions["sni_hostname"] = wire.OWN_NAME


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unproven_root(authority: str) -> str:
    """Whatever calls itself the root of *authority*. Nothing is sent and nothing believed here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is the check; see pinned_root
    with Authority(_http(checked_url(authority), None, verify=context), authority) as door:
        text = door.tls_root()
    if len(text) > ROOT_LIMIT:
        raise TooLarge("what answered is no authority: its root certificate is too large")
    return text


def _checked_pin(pin: str) -> str:
    kind, _, digits = pin.strip().lower().partition(":")
    if kind != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise InvalidInput(
            "this is not a pin: it is written sha256: and 64 hexadecimal digits",
            hint="`bartizan pin`, typed on the authority's own machine, prints it",
        )
    return f"{kind}:{digits}"


def _unreachable(place: str, error: httpx.ConnectError, *, pin: str | None) -> BartizanError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text and pin is not None and (shown := _shown_pin(place)) not in (None, pin):
        return AccessDenied(
            f"the pin of the authority at {place} changed: it was {pin}, now it shows {shown}; nothing was sent to it",
            hint="somebody may be in between: compare with `bartizan pin`, typed on the authority's own machine; "
            "if it says the same, bart login --pin with the new one",
            code="pin_mismatch",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return AccessDenied(
            f"the certificate of the authority at {place} is not one that is trusted here ({_why(text)})",
            hint="add --pin sha256:…, as `bartizan pin` prints it on the authority's own machine",
            code="authority_untrusted",
        )
    if place.startswith("https://") and _no_network(error):
        return Unavailable(
            f"cannot reach the authority at {place}: {_why(text)}",
            hint="is this machine on the network, and the name right?",
        )
    if place.startswith("https://"):
        return Unavailable(
            f"cannot reach the authority at {place}: {_why(text)}",
            hint="is `bartizan up` running there, and is this what it was given as --web?",
        )
    return Unavailable(f"the authority in {place} is not running", hint=f"bartizan up --data {place}")


def _shown_pin(place: str) -> str | None:
    """The pin that whatever answers there shows now, if it shows one."""
    try:
        return pin_of(_unproven_root(place))
    except BartizanError:
        return None


def _no_network(error: BaseException | None) -> bool:
    """Whether the name does not resolve or no way leads there: then nobody has to look at the authority first."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
            return True
        error = error.__cause__ or error.__context__
    return False


def _why(text: str) -> str:
    """The words of OpenSSL or the system, without their numbers."""
    return text.rpartition("] ")[2].partition(" (_ssl")[0].lower() or text


def _other_version(error: ValidationError) -> BartizanError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "answer"
    return Unavailable(
        f"the authority's answer is not understood here ({where}: {first['msg']})",
        hint="bart and the authority may be of different versions",
    )
