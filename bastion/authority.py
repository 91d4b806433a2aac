"""The one client of the authority: authorize, sync, end. Mutual TLS; every answer is checked against ``ca/wire.py``."""

from __future__ import annotations

import ssl
from typing import Protocol, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from bastion.state import State
from ca import errors, wire

TIMEOUT = httpx.Timeout(10.0, connect=3.0)
_KINDS = {kind.kind: kind for kind in errors.BartizanError.__subclasses__()}
_BY_STATUS = {400: errors.InvalidInput, 401: errors.NotSignedIn, 403: errors.AccessDenied, 404: errors.NotFound}
Shape = TypeVar("Shape")
_DECISION: TypeAdapter[wire.SessionAllowed | wire.SessionDenied] = TypeAdapter(wire.SessionAllowed | wire.SessionDenied)


class Authority(Protocol):
    """What a bastion asks of the authority. Each call raises ``errors.Unavailable`` when it cannot be reached."""

    async def trust(self) -> wire.TrustAnchors: ...

    async def shown(self, names: list[str]) -> wire.ShownCertificates: ...

    async def authorize(self, request: wire.SessionRequest) -> wire.SessionAllowed | wire.SessionDenied: ...

    async def sync(self, request: wire.SyncRequest) -> wire.SyncAnswer: ...

    async def end(self, session: str, end: wire.SessionEnd) -> wire.Countersignature: ...

    async def head(self, session: str) -> wire.RecordingHead | None: ...


async def _asking_for_its_own(request: httpx.Request) -> None:
    """Ask in TLS for the certificate under the pinned root, which signs for this one authority alone."""
    request.extensions["sni_hostname"] = wire.OWN_NAME


class HttpAuthority:
    """The authority over HTTPS."""

    def __init__(self, url: str, state: State) -> None:
        root, certificate, key = state.tls_files
        context = ssl.create_default_context(cafile=str(root))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=context,
            timeout=TIMEOUT,
            trust_env=False,
            event_hooks={"request": [_asking_for_its_own]},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def trust(self) -> wire.TrustAnchors:
        return await self._call("GET", "/v1/bastions/trust", wire.TrustAnchors)

    async def shown(self, names: list[str]) -> wire.ShownCertificates:
        body = wire.ShownNames(names=names)
        return await self._call("POST", "/v1/bastions/shown-certificates", wire.ShownCertificates, body)

    async def authorize(self, request: wire.SessionRequest) -> wire.SessionAllowed | wire.SessionDenied:
        return _DECISION.validate_json(await self._send("POST", "/v1/sessions", request))

    async def sync(self, request: wire.SyncRequest) -> wire.SyncAnswer:
        return await self._call("POST", "/v1/bastions/sync", wire.SyncAnswer, request)

    async def end(self, session: str, end: wire.SessionEnd) -> wire.Countersignature:
        return await self._call("POST", f"/v1/sessions/{session}/end", wire.Countersignature, end)

    async def head(self, session: str) -> wire.RecordingHead | None:
        adapter: TypeAdapter[wire.RecordingHead | None] = TypeAdapter(wire.RecordingHead | None)
        return adapter.validate_json(await self._send("GET", f"/v1/sessions/{session}/head", None))

    async def _call(self, method: str, path: str, shape: type[Shape], body: BaseModel | None = None) -> Shape:
        raw = await self._send(method, path, body)
        try:
            return TypeAdapter(shape).validate_json(raw)
        except ValidationError as error:
            raise errors.Unavailable(
                f"the authority's answer to {path} is not understood: {error.errors()[0]}"
            ) from None

    async def _send(self, method: str, path: str, body: BaseModel | None) -> bytes:
        content = None if body is None else body.model_dump_json().encode()
        headers = {"content-type": "application/json"} if content is not None else {}
        try:
            answer = await self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise errors.Unavailable(f"the authority cannot be reached: {type(error).__name__}") from None
        if answer.is_success:
            return answer.content
        raise _problem(answer)


def _problem(answer: httpx.Response) -> errors.BartizanError:
    """The error that the authority meant."""
    kind = _BY_STATUS.get(answer.status_code, errors.Unavailable)
    try:
        problem = wire.Problem.model_validate_json(answer.content)
    except ValidationError:
        return kind(f"the authority answered {answer.status_code}")
    return _KINDS.get(problem.error, kind)(problem.message, hint=problem.hint, code=problem.error)
