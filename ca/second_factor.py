"""The second factor of a local account."""

from __future__ import annotations

from ca.app import Authority
from ca.store.users import Account


async def check(authority: Authority, account: Account, code: str | None, *, source: str) -> tuple[str, ...]:
    """Nothing is asked for yet."""
    return ()
