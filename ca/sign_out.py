"""
The end of what a person was given: tokens, browser sessions and certificates. Live ssh sessions feel it at once,
because a certificate that was revoked carries none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ca import audit
from ca.store import Db, certificates, device_logins, sessions, tokens
from ca.store import audit as log

if TYPE_CHECKING:
    from ca.app import Authority


async def sign_out(authority: Authority, user: str, *, token: str | None, everywhere: bool, actor: str) -> None:
    """End one token; or all of *user*'s, with every certificate that is still good."""

    def work(db: Db) -> None:
        if everywhere:
            ended, revoked = end_everything(db, user, reason="signed out everywhere", actor=actor)
            event = audit.LoginEndedEverywhere(user=user, tokens=ended, certificates=revoked)
            log.append(db, event, actor=actor)
        elif token is not None:
            tokens.end(db, token)
            log.append(db, audit.LoginEnded(user=user), actor=actor)

    await (authority.change(work) if everywhere else authority.store.write(work))


def end_everything(db: Db, user: str, *, reason: str, actor: str) -> tuple[int, int]:
    """How many tokens ended and how many certificates were revoked. An unused invitation link stays good.

    A session may outlive its certificate: those that carry a live session are revoked too.
    """
    ended = sum(tokens.end_all_of(db, user, kind) for kind in ("login", "web", "code"))
    device_logins.end_all_of(db, user)
    carrying = {session.user_serial for session in sessions.live(db) if session.user == user}
    revoked = certificates.good_ones_of(db, user, carrying)
    certificates.mark(db, "user", [one.serial for one in revoked], "revoked")
    for one in revoked:
        log.append(db, audit.CertificateRevoked(ca="user", serial=one.serial, reason=reason), actor=actor)
    return ended, len(revoked)
