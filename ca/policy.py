"""
Who may do what. Pure: values in, a decision out. Never reads a clock, a row or a socket.

Nothing said here names a user or a node that the person does not reach: a node behind a lock or a deny-entry that no
role of theirs reaches is answered like a node that does not exist (``unknown_node``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ca.grants import denies, expand, logins, matches, reaches
from ca.model import BUILT_ACTIONS, Action, Allow, Decision, Deny, DenyCode, Grant, Identity, Lock, Node, Role

ADMIN = "admin"
"""The built-in role: administers the cluster. It reaches no node and reads no recording by itself."""


def decide(
    who: Identity,
    node: Node,
    login: str,
    action: str,
    *,
    roles: Iterable[Role],
    locks: Iterable[Lock],
    now: datetime,
    bound: bool = True,
) -> Decision:
    """Say whether *who* may do *action* on *node* as *login*.

    Deny wins; nothing matches = no. One grant must reach the node, give the login and give the action: two grants
    never add up to a right that neither has, and the options are those of that grant. Grants are tried by role name,
    then in file order, so equal inputs always name the same grant, whatever order the store returned them in.

    ``bound`` is False for a client whose signature names no host key; only a grant with ``unsafe_unbound_client``
    admits it.
    """
    # 1. Grants of held roles that reach the node. Without one the node might as well not exist.
    held = _held(who, roles)
    reaching = [(role, number, grant) for role, number, grant in _grants(held) if reaches(grant, node)]
    # 2. A lock in force beats every role. What only a lock on an unreached node could tell is not told.
    lock = _lock_in_force(who, node, login, locks, now)
    if lock and (reaching or lock.node is None):
        return Deny(DenyCode.LOCKED, f"access is locked by an administrator: {_one_line(lock.reason)}")
    if lock or not reaching:
        return unknown_node(node.name)
    # 3. A deny-entry of any held role.
    for role in held:
        if any(denies(entry, node, login, action) for entry in role.deny):
            return Deny(
                DenyCode.DENIED_BY_ROLE,
                f"your role {role.name} denies {_show(action)} as {_show(login)} on {node.name}",
            )
    # 4. Of the reaching grants, those that give the login.
    giving = [(role, number, grant) for role, number, grant in reaching if login in logins(grant, who)]
    if not giving:
        return _login_denied(who, node, login, reaching, held, locks, now)
    # 5. This version carries the action out.
    if action not in BUILT_ACTIONS:
        return Deny(
            DenyCode.ACTION_NOT_BUILT,
            f"{_show(action)} is not carried out by this version",
            hint=_listed("you may use", _open_actions(giving, held, node, login)),
        )
    # 6. The first grant that gives the action too, for a client of this kind.
    matching = [(role, number, grant) for role, number, grant in giving if action in grant.actions]
    if not matching:
        return Deny(
            DenyCode.ACTION_NOT_GRANTED,
            f"none of your roles allows {action} as {login} on {node.name}",
            hint=_listed("you may use", _open_actions(giving, held, node, login)),
        )
    for role, number, grant in matching:
        if bound or grant.options.unsafe_unbound_client:
            return Allow(role.name, number, grant.options)
    return Deny(
        DenyCode.UNBOUND_CLIENT,
        "your SSH client does not sign which host it is talking to",
        hint="use OpenSSH 8.9 or later, or ssh LOGIN+NODE@bartizan, which names the node in what is signed",
    )


def access(
    who: Identity,
    node: Node,
    login: str,
    *,
    roles: Iterable[Role],
    locks: Iterable[Lock],
    now: datetime,
    bound: bool = True,
) -> dict[str, Allow] | Deny:
    """All actions that *who* may do on *node* as *login*, each with the grant that allows it; or why there is none."""
    roles, locks = list(roles), list(locks)
    allowed: dict[str, Allow] = {}
    denials: list[Deny] = []
    for action in BUILT_ORDER:
        decision = decide(who, node, login, action, roles=roles, locks=locks, now=now, bound=bound)
        match decision:
            case Allow():
                allowed[action] = decision
            case Deny():
                denials.append(decision)
    if allowed:
        return allowed
    denial = _most_helpful(denials)
    if denial.code is not DenyCode.ACTION_NOT_GRANTED:
        return denial
    return _nothing_built(who, node, login, roles)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a person may do on one node: logins, their own name first, and the actions over all of them."""

    logins: tuple[str, ...]
    actions: tuple[str, ...]


def reachable(
    who: Identity, node: Node, *, roles: Iterable[Role], locks: Iterable[Lock], now: datetime
) -> Reach | None:
    """The logins and actions that are open to *who* on *node*; None when there is nothing."""
    roles, locks = list(roles), list(locks)
    open_logins: list[str] = []
    actions: set[str] = set()
    for login in _candidates(who, node, roles):
        found = access(who, node, login, roles=roles, locks=locks, now=now)
        if not isinstance(found, Deny):
            open_logins.append(login)
            actions.update(found)
    if not open_logins:
        return None
    open_logins.sort(key=lambda login: login != who.user)  # stable: the others stay in the order of the roles
    return Reach(tuple(open_logins), tuple(action for action in BUILT_ORDER if action in actions))


def verdict(
    who: Identity,
    node: Node,
    login: str | None,
    action: str | None,
    *,
    roles: Iterable[Role],
    locks: Iterable[Lock],
    now: datetime,
) -> Decision:
    """Like ``decide``, where a login or an action that is left out stands for *any*."""
    roles, locks = list(roles), list(locks)
    denials: list[Deny] = []
    for one_login in [login] if login is not None else _candidates(who, node, roles) or [who.user]:
        for one_action in [action] if action is not None else BUILT_ORDER:
            decision = decide(who, node, one_login, one_action, roles=roles, locks=locks, now=now)
            if isinstance(decision, Allow):
                return decision
            denials.append(decision)
    return _most_helpful(denials)


def explain(
    who: Identity,
    node: Node,
    login: str | None = None,
    action: str | None = None,
    *,
    roles: Iterable[Role],
    locks: Iterable[Lock],
    now: datetime,
) -> list[str]:
    """Each lock, role and grant that was looked at and what it said, in order; ``verdict`` is what came of it.

    For administrators: it hides nothing.
    """
    roles, locks = list(roles), list(locks)
    lines = [f"{who.user} holds {', '.join(sorted(who.roles)) or 'no role'}"]
    lines += [_explain_lock(lock, who, node, login, now) for lock in locks]
    known = {role.name for role in roles} | {ADMIN}
    lines += [f"role {name}: held, and the roles file has none of this name" for name in sorted(who.roles - known)]
    for role in _held(who, [Role(ADMIN), *(role for role in roles if role.name != ADMIN)]):
        lines += _explain_role(role, who, node, login, action)
    return lines


def unknown_node(name: str) -> Deny:
    """The answer for a node that does not exist: to the letter the one for a node that no role reaches."""
    return Deny(
        DenyCode.NO_ROLE_REACHES_NODE,
        f"none of your roles reaches {_show(name)}",
        hint="bart ls shows the nodes that you may reach",
    )


def needs_second_factor(who: Identity, roles: Iterable[Role]) -> bool:
    """Whether a role that *who* holds wants a second factor at sign-in."""
    return any(role.mfa for role in _held(who, roles))


def may_audit(
    who: Identity,
    roles: Iterable[Role],
    node_name: str,
    *,
    locks: Iterable[Lock] = (),
    now: datetime | None = None,
) -> bool:
    """Whether *who* may read recordings of sessions on the node of this name. Administrators may not by being so."""
    return not barred(who, locks=locks, now=now) and any(
        matches(pattern, node_name) for role in _held(who, roles) for pattern in role.audit.recordings
    )


def may_read_events(
    who: Identity, roles: Iterable[Role], *, locks: Iterable[Lock] = (), now: datetime | None = None
) -> bool:
    """Whether *who* may read the audit log: a role's ``audit: {events: "*"}``, or the built-in ``admin``."""
    return not barred(who, locks=locks, now=now) and (
        ADMIN in who.roles or any(role.audit.events for role in _held(who, roles))
    )


def may_administer(who: Identity, *, locks: Iterable[Lock] = (), now: datetime | None = None) -> bool:
    """Whether *who* may administer the cluster."""
    return ADMIN in who.roles and not barred(who, locks=locks, now=now)


def barred(who: Identity, *, locks: Iterable[Lock], now: datetime | None) -> Lock | None:
    """The lock that keeps *who* out everywhere (it names neither node nor login), if there is one."""
    return next(
        (
            lock
            for lock in sorted(locks, key=lambda lock: lock.id)
            if lock.node is None and lock.login is None and _in_force(lock, now) and _names(lock, who)
        ),
        None,
    )


BUILT_ORDER: tuple[str, ...] = tuple(action.value for action in Action if action in BUILT_ACTIONS)
_RANK = {
    code: rank
    for rank, code in enumerate(
        (
            DenyCode.NO_ROLE_REACHES_NODE,
            DenyCode.TEMPLATE_UNRESOLVED,
            DenyCode.LOGIN_NOT_GRANTED,
            DenyCode.PRIVILEGED_PRINCIPAL,
            DenyCode.ACTION_NOT_BUILT,
            DenyCode.ACTION_NOT_GRANTED,
            DenyCode.DENIED_BY_ROLE,
            DenyCode.UNBOUND_CLIENT,
            DenyCode.LOCKED,
        )
    )
}
"""How much a denial tells, least first; of several, the person hears the one that tells most."""


def _held(who: Identity, roles: Iterable[Role]) -> list[Role]:
    return sorted((role for role in roles if role.name in who.roles), key=lambda role: role.name)


def _grants(roles: Iterable[Role]) -> Iterator[tuple[Role, int, Grant]]:
    for role in roles:
        for number, grant in enumerate(role.allow, start=1):
            yield role, number, grant


def _in_force(lock: Lock, now: datetime | None) -> bool:
    return lock.expires is None or now is None or now < lock.expires


def _names(lock: Lock, who: Identity) -> bool:
    return lock.user in (None, who.user) and (lock.role is None or lock.role in who.roles)


def _lock_in_force(
    who: Identity, node: Node, login: str | None, locks: Iterable[Lock], now: datetime | None
) -> Lock | None:
    """The lock that holds here; one that does not name the node first. All that a lock names must be met."""
    found = (
        lock
        for lock in locks
        if _in_force(lock, now)
        and _names(lock, who)
        and lock.node in (None, node.name, node.id)
        and lock.login in (None, login)
    )
    return min(found, key=lambda lock: (lock.node is not None, lock.id), default=None)


def _candidates(who: Identity, node: Node, roles: Iterable[Role]) -> list[str]:
    """Every login that some grant gives on *node*, in the order of the roles."""
    return list(
        dict.fromkeys(
            login for _, _, grant in _grants(_held(who, roles)) if reaches(grant, node) for login in logins(grant, who)
        )
    )


def _login_denied(
    who: Identity,
    node: Node,
    login: str,
    reaching: Sequence[tuple[Role, int, Grant]],
    held: Sequence[Role],
    locks: Iterable[Lock],
    now: datetime,
) -> Deny:
    """Why no reaching grant gives the login; the hint names those that are open here."""
    found = reachable(who, node, roles=held, locks=locks, now=now)
    hint = _listed("logins granted there:", found.logins) if found else None
    written = [(role, one) for role, _, grant in reaching for one in grant.logins if "{{" in one]
    for role, template in written:
        if login in expand(template, who):
            return Deny(
                DenyCode.PRIVILEGED_PRINCIPAL,
                f"{login} is a privileged login, and role {role.name} gives it only by the template {template}",
                hint=hint or f"an administrator can write {login} out in the role",
            )
    empty = [(role, template) for role, template in written if not expand(template, who)]
    if found is None and empty:
        role, template = empty[0]
        return Deny(
            DenyCode.TEMPLATE_UNRESOLVED,
            f"role {role.name} gives the login {template} on {node.name}, and your account has no login name for it",
        )
    return Deny(DenyCode.LOGIN_NOT_GRANTED, f"none of your roles allows login {_show(login)} on {node.name}", hint=hint)


def _nothing_built(who: Identity, node: Node, login: str, roles: Iterable[Role]) -> Deny:
    """The login is given, and no built action with it."""
    given = sorted(
        action
        for _, _, grant in _grants(_held(who, roles))
        if reaches(grant, node) and login in logins(grant, who)
        for action in grant.actions
    )
    if given:
        return Deny(
            DenyCode.ACTION_NOT_BUILT,
            f"your roles allow only {', '.join(dict.fromkeys(given))} as {login} on {node.name},"
            " which this version does not carry out",
        )
    return Deny(DenyCode.ACTION_NOT_GRANTED, f"none of your roles allows any action as {login} on {node.name}")


def _open_actions(giving: Iterable[tuple[Role, int, Grant]], held: Sequence[Role], node: Node, login: str) -> list[str]:
    given = {action for _, _, grant in giving for action in grant.actions}
    entries = [entry for role in held for entry in role.deny]
    return [
        one for one in BUILT_ORDER if one in given and not any(denies(entry, node, login, one) for entry in entries)
    ]


def _most_helpful(denials: Sequence[Deny]) -> Deny:
    return max(denials, key=lambda denial: _RANK[denial.code])  # the first of equals


def _listed(words: str, names: Sequence[str]) -> str | None:
    return f"{words} {', '.join(names)}" if names else None


def _one_line(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)


def _show(text: str) -> str:
    """What a person typed, safe to show: quoted when it is not a plain word, cut when long."""
    return text if re.fullmatch(r"[a-z0-9_.@:-]{1,64}", text) else ascii(text[:64])


def _explain_lock(lock: Lock, who: Identity, node: Node, login: str | None, now: datetime) -> str:
    named = ", ".join(
        f"{word} {value}"
        for word, value in (("user", lock.user), ("node", lock.node), ("role", lock.role), ("login", lock.login))
        if value
    )
    if not _in_force(lock, now):
        said = "over"
    elif _lock_in_force(who, node, login if login is not None else lock.login, [lock], now):
        said = "applies: no role can open this"
    else:
        said = "does not apply"
    return f"lock {lock.id} on {named}: {said}"


def _explain_role(role: Role, who: Identity, node: Node, login: str | None, action: str | None) -> Iterator[str]:
    if role.name == ADMIN:
        yield f"role {role.name}: built in, administers the cluster, reaches no node"
        return
    for number, entry in enumerate(role.deny, start=1):
        applies = denies(
            entry,
            node,
            login if login is not None else next(iter(entry.logins), None),
            action if action is not None else next(iter(sorted(entry.actions)), None),
        )
        yield f"role {role.name}, deny {number}: {'applies' if applies else 'does not apply'}"
    if not role.allow:
        yield f"role {role.name}: allows nothing"
    for number, grant in enumerate(role.allow, start=1):
        yield f"role {role.name}, grant {number}: {_explain_grant(grant, who, node, login, action)}"


def _explain_grant(grant: Grant, who: Identity, node: Node, login: str | None, action: str | None) -> str:
    if not reaches(grant, node):
        labels = {**node.labels, "name": node.name}
        for key, patterns in grant.nodes.items():
            if key not in labels:
                return f"does not reach {node.name}: it has no label {key}"
            if not any(matches(pattern, labels[key]) for pattern in patterns):
                return f"does not reach {node.name}: {key} is {labels[key]!r}, not {' or '.join(map(repr, patterns))}"
        return f"does not reach {node.name}: it names no nodes"
    given = logins(grant, who)
    if login is not None and login not in given:
        refused = [one for one in grant.logins if "{{" in one and login in expand(one, who)]
        if refused:
            return f"reaches {node.name}; {login} is privileged and comes from the template {refused[0]}: not given"
        return f"reaches {node.name}; gives the logins {', '.join(given) or 'none'}, not {_show(login)}"
    if action is not None and action not in grant.actions:
        return f"reaches {node.name}; gives {', '.join(sorted(grant.actions)) or 'no action'}, not {_show(action)}"
    if login is not None and action is not None:
        return f"reaches {node.name}; gives {login} and {action}"
    return f"reaches {node.name} as {login or ', '.join(given) or 'nobody'} for {', '.join(sorted(grant.actions))}"
