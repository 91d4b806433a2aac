"""HTTP for the roles file and for the question who may do what."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter

from ca import audit, policy, roles
from ca.api import users as people
from ca.api.callers import Administrator, Here
from ca.app import Authority
from ca.errors import InvalidInput
from ca.model import Allow, Role
from ca.store import Db, nodes
from ca.store import audit as log
from ca.store import roles as files
from ca.wire import ExplainRequest, Explanation, RolesApplied, RolesFile

router = APIRouter(prefix="/v1", tags=["roles"])


@router.get("/roles")
async def show(authority: Here, caller: Administrator) -> dict[str, str]:
    """The file in force, as it was written."""
    _, text = await authority.store.read(files.current)
    return {"text": text}


@router.put("/roles")
async def apply(file: RolesFile, authority: Here, caller: Administrator) -> RolesApplied:
    """Put a file in force once it parses and its own tests pass. Live sessions feel it before the answer."""
    document = roles.parse(file.text, file.file)
    failures = roles.run_tests(document)
    if failures:
        raise InvalidInput(failures[0], hint="; ".join(failures[1:4]) or None, code="role_test_failed")
    before = await authority.store.read(lambda db: _in_force(authority, db))
    changes = roles.changes(before, document.roles)
    ended = 0
    if not file.dry_run:
        event = audit.RolesApplied(
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
            sha256=hashlib.sha256(file.text.encode()).hexdigest(),
        )

        def work(db: Db) -> None:
            files.apply(db, file.text, by=caller.actor)
            log.append(db, event, actor=caller.actor)

        await authority.store.write(work)
        ended = await authority.live.reconsider()
    return RolesApplied(
        added=list(changes.added),
        changed=list(changes.changed),
        removed=list(changes.removed),
        tests_passed=len(document.tests),
        ended_sessions=ended,
    )


@router.post("/access/explain")
async def explain(asked: ExplainRequest, authority: Here, caller: Administrator) -> Explanation:
    """Whether somebody may do something, and what each role and lock said."""
    return await authority.store.read(lambda db: _explanation(authority, db, asked))


def _explanation(authority: Authority, db: Db, asked: ExplainRequest) -> Explanation:
    account = people.find(db, asked.user)
    node = nodes.find(db, asked.node)
    if node is None:
        denied = policy.unknown_node(asked.node)
        line = f"there is no node {asked.node!a}"
        return Explanation(allowed=False, code=denied.code, reason=denied.reason, hint=denied.hint, lines=[line])
    view = authority.rights.view(db)
    question = (account.identity, node.node, asked.login, asked.action)
    lines = policy.explain(*question, roles=view.roles, locks=view.locks, now=db.now)
    if account.disabled:
        lines.append(f"the account of {account.name} is closed")
        return Explanation(allowed=False, code="user_disabled", reason="the account is closed", lines=lines)
    if account.refused is not None:
        lines.append(f"{account.provider} no longer vouches for {account.name}: {account.refused}")
        return Explanation(allowed=False, code="identity_refused", reason=account.refused, lines=lines)
    decision = policy.verdict(*question, roles=view.roles, locks=view.locks, now=db.now)
    if isinstance(decision, Allow):
        reason = f"allowed by role {decision.role}, grant {decision.grant}"
        return Explanation(allowed=True, reason=reason, lines=lines)
    return Explanation(allowed=False, code=decision.code, reason=decision.reason, hint=decision.hint, lines=lines)


def _in_force(authority: Authority, db: Db) -> tuple[Role, ...]:
    return tuple(role for role in authority.rights.view(db).roles if role.name != policy.ADMIN)
