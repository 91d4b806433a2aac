"""
Local accounts: a password of at least 12 characters, kept as argon2id.

Checking costs the same whether the person exists or not, and never runs on the event loop. Counting failures is
done by ``ca/store/logins.py``.
"""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ca.errors import InvalidInput

SHORTEST = 12
AT_ONCE = 2
"""Checks that run side by side: each takes 64 MiB for a moment, and strangers can ask for one."""


class Passwords:
    """Makes and checks hashes."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._nobody = self._hasher.hash("nobody has this password")

    async def hashed(self, password: str) -> str:
        """argon2id of *password*. What is too short is refused; length is the only rule."""
        if len(password) < SHORTEST:
            raise InvalidInput(f"password: expected at least {SHORTEST} characters", code="password_too_short")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether *password* is the one. Without a hash it works as long, and the answer is no."""
        async with self._turns:
            same = await asyncio.to_thread(self._same, password_hash or self._nobody, password)
        return same and password_hash is not None

    def _same(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False
