"""
The path of one issuance. The numbered plan, which every certificate goes:

1. Decide: the caller's rules, then the planner's (``ca/certificate.py``). A refusal is an event and uses no serial.
2. Store: serial, row (``stored``) and audit event in one transaction, with the SHA-256 of what will be signed.
3. Sign.
4. Verify what was signed and parse it back. If that fails: the row is void, an event says so, nobody gets anything.
5. Mark the row ``issued``, unless it was revoked meanwhile.
6. Return it.

``Issuer.store`` is 2, ``Issuer.sign`` is 3 to 6. Nothing else signs.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ca import audit
from ca.certificate import CA, CertPlan
from ca.errors import AccessDenied, InvalidInput, SignerFault
from ca.keys import KeyRing
from ca.metrics import Metrics
from ca.sshcert import Certificate
from ca.store import Db, Store, certificates, tokens
from ca.store import audit as log
from recordings import sshsig
from recordings.sshkey import PublicKey, SignatureError

ENROL_NAMESPACE = "bartizan-enrol"
JOIN_NAMESPACE = "bartizan-join"

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stored:
    """Decided and stored, not signed yet."""

    ca: CA
    plan: CertPlan
    to_be_signed: bytes


class Issuer:
    """Issues certificates, countersigns recordings and tells beacons: all that is done with the keys."""

    def __init__(self, store: Store, keys: KeyRing, metrics: Metrics) -> None:
        self._store = store
        self._keys = keys
        self._metrics = metrics

    # --- what the keys say --------------------------------------------------------------------------------------

    def public_key(self, ca: CA) -> PublicKey:
        return self._keys.authorities[ca].public_key

    @property
    def recorder(self) -> PublicKey:
        return self._keys.recorder

    def countersign(self, manifest: bytes) -> str:
        return self._keys.countersign(manifest)

    def beacon(self, now: datetime) -> str:
        return self._keys.beacon(now)

    def beacon_age(self, beacon: str, now: datetime) -> timedelta | None:
        return self._keys.beacon_age(beacon, now)

    def form_token(self, about: str) -> str:
        return self._keys.form_token(about)

    # --- the path -----------------------------------------------------------------------------------------------

    def store(
        self,
        db: Db,
        ca: CA,
        plan_for: Callable[[int], CertPlan],
        *,
        actor: str,
        user: str | None = None,
        node_id: str | None = None,
        session: str | None = None,
    ) -> Stored:
        """Step 2, inside the caller's transaction. The planner may still refuse: the transaction takes it all back."""
        plan = plan_for(certificates.next_serials(db, ca)[0])
        authority = self._keys.authorities[ca]
        fingerprint = plan.public_key.fingerprint()
        to_be_signed = authority.encode(plan)
        certificates.store(
            db,
            certificates.Record(
                ca=ca,
                serial=plan.serial,
                key_id=plan.key_id,
                principals=plan.principals,
                valid_after=plan.valid_after,
                valid_before=plan.valid_before,
                state="stored",
                subject=fingerprint,
                tbs_sha256=hashlib.sha256(to_be_signed).hexdigest(),
                user=user,
                node_id=node_id,
                session=session,
            ),
        )
        event = audit.CertificateIssued(
            ca=ca,
            serial=plan.serial,
            key_id=plan.key_id,
            principals=plan.principals,
            fingerprint=fingerprint,
            valid_after=audit.moment(plan.valid_after),
            valid_before=audit.moment(plan.valid_before),
            user=user,
            node=node_id,
            session=session,
        )
        log.append(db, event, actor=actor)
        return Stored(ca, plan, to_be_signed)

    async def sign(self, stored: Sequence[Stored]) -> list[Certificate]:
        """Steps 3 to 6, for certificates that were stored together."""
        try:
            made = [self._keys.authorities[one.ca].sign(one.plan, one.to_be_signed) for one in stored]
        except SignerFault:
            await self._void(stored, "what the key signed does not verify")
            raise
        serials = _by_ca(stored)

        def mark(db: Db) -> None:
            for ca, numbers in serials.items():
                if not certificates.issued(db, ca, numbers):
                    raise AccessDenied("it was revoked before it was handed out", code="certificate_revoked")

        await self._store.write(mark)
        for ca, numbers in serials.items():
            self._metrics.issued.labels(ca).inc(len(numbers))
        return made

    async def repair(self) -> list[str]:
        """Void what a crash left between storing and signing; says what it did, one line each."""
        left = await self._store.read(certificates.left_over)
        if not left:
            return []

        def void(db: Db) -> None:
            for one in left:
                certificates.mark(db, one.ca, [one.serial], "void")
                event = audit.CertificateVoided(ca=one.ca, serial=one.serial, reason="stopped before it was signed")
                log.append(db, event, actor="authority")

        await self._store.write(void)
        return [f"certificate {one.serial} of the {one.ca} CA was stored but not signed: void" for one in left]

    @asynccontextmanager
    async def refusals(
        self, ca: CA, *, actor: str, user: str | None = None, node: str | None = None
    ) -> AsyncIterator[None]:
        """Step 1's other half: a refusal inside the block becomes an event, then goes on its way."""
        try:
            yield
        except (InvalidInput, AccessDenied) as error:
            event = audit.CertificateDenied(ca=ca, reason=error.code, user=user, node=node, detail=str(error))
            await self._store.write(lambda db: log.append(db, event, actor=actor))
            raise

    async def _void(self, stored: Sequence[Stored], reason: str) -> None:
        self._metrics.alarm("signer_fault")
        logger.error("signer fault", serials=[f"{one.ca}:{one.plan.serial}" for one in stored])
        serials = _by_ca(stored)

        def void(db: Db) -> None:
            for ca, numbers in serials.items():
                certificates.mark(db, ca, numbers, "void")
                for serial in numbers:
                    log.append(db, audit.CertificateVoided(ca=ca, serial=serial, reason=reason), actor="authority")

        await self._store.write(void)

    # --- subject keys -------------------------------------------------------------------------------------------

    def refuse_own_keys(self, db: Db, key: PublicKey, others: Iterable[str] = ()) -> None:
        """Never certify a key of ours, one of *others* (lines), or one whose certificate was revoked (CA-28)."""
        ours: Collection[bytes] = {self.recorder.blob, *(self.public_key(ca).blob for ca in CA)}
        if key.blob in ours or any(PublicKey.from_line(line).blob == key.blob for line in others):
            raise AccessDenied("this key has another use here and is not certified", code="key_forbidden")
        if certificates.revoked_subject(db, key.fingerprint()):
            raise AccessDenied("a certificate for this key was revoked", hint="make a new key", code="key_forbidden")


def possession(key: PublicKey, nonce: str, armored: str, *, namespace: str) -> None:
    """Refuse unless *key* signed *nonce* for *namespace* (CA-33). The nonce itself is used up by ``use_nonce``."""
    try:
        signer = sshsig.verify(armored, nonce.encode(), namespace=namespace)
    except SignatureError as error:
        raise _not_possessed() from error
    if signer != key.blob:
        raise _not_possessed()


def use_nonce(db: Db, purpose: str, nonce: str) -> None:
    """Use the nonce up, or refuse."""
    if not tokens.answer(db, purpose, nonce):
        raise _not_possessed()


def waiting_nonce(db: Db, purpose: str, nonce: str) -> None:
    """Refuse a nonce that ``use_nonce`` would refuse, and leave it."""
    if not tokens.waits(db, purpose, nonce):
        raise _not_possessed()


def _not_possessed() -> AccessDenied:
    return AccessDenied("possession of the key was not proven", hint="ask for a new challenge", code="pop_failed")


def _by_ca(stored: Sequence[Stored]) -> dict[CA, list[int]]:
    serials: dict[CA, list[int]] = {}
    for one in stored:
        serials.setdefault(one.ca, []).append(one.plan.serial)
    return serials
