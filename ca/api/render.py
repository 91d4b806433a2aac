"""
How errors look over HTTP: the one table of status codes, and the shape of every error answer (``wire.Problem``).
"""

from __future__ import annotations

import secrets

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ca import errors
from ca.audit import AuditError
from ca.errors import BartizanError

STATUS: dict[type[BartizanError], int] = {
    errors.InvalidInput: 400,
    AuditError: 400,
    errors.NotSignedIn: 401,
    errors.AccessDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.TooMany: 429,
    errors.SignerFault: 500,
    errors.Unavailable: 503,
}
PLAIN = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "media_type", 421: "wrong_host"}
FIELD_CODES = {"ttl_seconds": "ttl_invalid"}
"""Fields whose every wrong value has a code of its own."""

log = structlog.get_logger()


def problem(status: int, code: str, message: str, hint: str | None = None) -> JSONResponse:
    """An error answer. Nothing of it may be kept by caches."""
    content = {"error": code, "message": message, "hint": hint}
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == STATUS[errors.TooMany]:
        headers["Retry-After"] = str(errors.TooMany.wait_seconds)
    return JSONResponse(content, status, headers)


def status(error: BartizanError) -> int:
    return next(number for kind, number in STATUS.items() if isinstance(error, kind))


def expected(error: BartizanError) -> JSONResponse:
    return problem(status(error), error.code, str(error), error.hint)


def unexpected(error: Exception, *, method: str, path: str) -> JSONResponse:
    """A bug: the caller gets an incident id, the log the traceback."""
    incident = secrets.token_hex(6)
    log.error("bug", incident=incident, method=method, path=path, exc_info=error)
    return problem(500, "bug", f"something went wrong here (incident {incident})", "tell an administrator")


def install(app: FastAPI) -> None:
    """Let *app* answer every error in our shape."""

    @app.exception_handler(BartizanError)
    async def _expected(_request: Request, error: BartizanError) -> JSONResponse:
        return expected(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _shape(error)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        return unexpected(error, method=request.method, path=request.scope["path"])

    @app.exception_handler(HTTPException)
    async def _plain(_request: Request, error: HTTPException) -> JSONResponse:
        return plain(error)


def plain(error: HTTPException) -> JSONResponse:
    """What never reached a route of ours."""
    return problem(error.status_code, PLAIN.get(error.status_code, "refused"), str(error.detail).lower())


def _shape(error: RequestValidationError) -> JSONResponse:
    """The first field that is wrong, by its name; never its value, which may be a secret."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        return problem(400, "unknown_field", f"{name}: there is no such field")
    if first["type"] in ("json_invalid", "missing") and not place:
        return problem(400, "invalid_input", "the body is not JSON of the expected shape")
    message = str(first["msg"]).lower()
    return problem(400, FIELD_CODES.get(place[-1], "invalid_input") if place else "invalid_input", f"{name}: {message}")
