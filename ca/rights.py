"""
What the store says of people, roles and locks, put together for ``ca/policy.py``: load, one pure call.

The roles file is parsed once for each revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ca import policy, roles
from ca.model import Allow, Deny, Identity, Lock, Options, Role
from ca.store import Db, locks, nodes
from ca.store import roles as files
from ca.store.nodes import StoredNode
from ca.wire import GrantedAction, ReachableNode

ADMIN_ROLE = Role(policy.ADMIN)
"""Built in: it may be held, and grants nothing on nodes."""


@dataclass(frozen=True, slots=True)
class View:
    """Roles and locks of one moment."""

    roles: tuple[Role, ...]
    locks: tuple[Lock, ...]


class Rights:
    """Reads the roles and locks in force, within the transaction of whoever asks."""

    def __init__(self) -> None:
        self._parsed: tuple[int, tuple[Role, ...]] = (0, (ADMIN_ROLE,))
        """Revision and roles together: transactions run in several threads."""

    def view(self, db: Db) -> View:
        revision, parsed = self._parsed
        if files.revision(db) != revision:
            revision, text = files.current(db)
            parsed = (ADMIN_ROLE, *roles.parse(text).roles) if revision else (ADMIN_ROLE,)
            self._parsed = (revision, parsed)
        return View(parsed, tuple(stored.lock for stored in locks.every(db)))

    def reachable(self, db: Db, who: Identity) -> list[ReachableNode]:
        """The nodes that are open to *who*, by name."""
        view = self.view(db)
        found = []
        for node in nodes.every(db):
            reach = policy.reachable(who, node.node, roles=view.roles, locks=view.locks, now=db.now)
            if reach is not None:
                found.append(
                    ReachableNode(
                        name=node.name, labels=node.labels, logins=list(reach.logins), actions=list(reach.actions)
                    )
                )
        return found

    def access(
        self, db: Db, who: Identity, node: StoredNode, login: str, *, bound: bool = True
    ) -> dict[str, Allow] | Deny:
        view = self.view(db)
        return policy.access(who, node.node, login, roles=view.roles, locks=view.locks, now=db.now, bound=bound)


def granted(allowed: dict[str, Allow]) -> list[GrantedAction]:
    """The permitted actions as a bastion gets to know them."""
    return [
        GrantedAction(
            action=action,
            role=allow.role,
            max_session_seconds=_seconds(allow.options, "max_session"),
            idle_seconds=_seconds(allow.options, "idle"),
            on_expiry=allow.options.on_expiry,
            record=allow.options.record,
            record_input=allow.options.record_input,
            record_limit=allow.options.record_limit,
            lease_seconds=int(allow.options.lease.total_seconds()),
        )
        for action, allow in allowed.items()
    ]


def still_holds(before: Sequence[GrantedAction], now: dict[str, Allow]) -> bool:
    """Whether all that a session was given may still be given, under no stricter conditions."""
    after = {one.action: one for one in granted(now)}
    return all(one.action in after and _no_stricter(one, after[one.action]) for one in before)


def _no_stricter(before: GrantedAction, after: GrantedAction) -> bool:
    return (
        _no_shorter(before.max_session_seconds, after.max_session_seconds)
        and _no_shorter(before.idle_seconds, after.idle_seconds)
        and before.lease_seconds <= after.lease_seconds
        and after.on_expiry in (before.on_expiry, "keep")
        and (before.record_input or not after.record_input)
    )


def _no_shorter(before: int | None, after: int | None) -> bool:
    return after is None or (before is not None and before <= after)


def _seconds(options: Options, name: str) -> int | None:
    span = getattr(options, name)
    return None if span is None else int(span.total_seconds())
