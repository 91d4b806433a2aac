"""
The roles file: strict parsing into values, and the file's own tests. Pure.

What is not understood is an error that names the line, the field and what was expected; nothing is skipped, and no
value is guessed. docs/reference/roles-file.md describes every field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import yaml

from ca.grants import TEMPLATE
from ca.model import (
    BUILT_ACTIONS,
    LABEL,
    LEASE,
    LOGIN,
    USER,
    Action,
    Allow,
    AuditScope,
    DenyCode,
    Grant,
    Identity,
    Node,
    Options,
    Role,
)
from ca.policy import ADMIN, decide
from ca.strictyaml import (
    FileError,
    Problem,
    Refused,
    boolean,
    choice,
    close,
    compose,
    duration,
    entries,
    fields,
    items,
    line,
    number,
    shown,
    size,
    word,
    words,
)

T = TypeVar("T")

ROLE = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?\Z")
"""A role's name."""

LABEL_KEY = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9_])?\Z")
"""The key of a node's label."""


class RolesError(FileError):
    """The file cannot be taken. The message is the first of ``problems``, with file and line."""

    file_code = "roles_invalid"


@dataclass(frozen=True, slots=True)
class RequestRule:
    """Who may ask for which roles, and who decides. Kept for access requests, which are not built yet."""

    roles: tuple[str, ...]
    reviewers: tuple[str, ...]
    approvals: int
    max_duration: timedelta | None


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A question and the answer that the file's author expects: ``allow``, ``deny`` or the code of a denial."""

    line: int
    who: Identity
    node: Node
    login: str
    action: str
    expect: str


@dataclass(frozen=True, slots=True)
class RolesDocument:
    """A roles file that was understood."""

    file: str
    roles: tuple[Role, ...]
    tests: tuple[PolicyTest, ...] = ()
    requests: Mapping[str, tuple[RequestRule, ...]] = field(default_factory=dict)
    """By the name of the role whose holders may ask."""
    notes: tuple[str, ...] = ()
    """What is accepted and has no effect in this version, each with its line."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of roles, sorted."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def parse(text: str, file: str = "roles.yaml") -> RolesDocument:
    """The roles and tests that *text* says. Every problem found is in the RolesError, the first one in its message."""
    return _Parser("".join(one if one.isprintable() else "?" for one in file)).document(text)


def run_tests(document: RolesDocument) -> list[str]:
    """The tests of the file that do not come out as they expect, each with its line; none when all is well."""
    failures = []
    for test in document.tests:
        decision = decide(test.who, test.node, test.login, test.action, roles=document.roles, locks=(), now=_NO_TIME)
        if isinstance(decision, Allow):
            got, told = {"allow"}, f"allow by role {decision.role}, grant {decision.grant}"
        else:
            got, told = {"deny", decision.code.value}, f"deny ({decision.code}): {decision.reason}"
        if test.expect not in got:
            failures.append(
                f"{document.file}:{test.line}: test failed: {test.who.user} on {test.node.name} as {test.login},"
                f" {test.action}: expected {test.expect}, got {told}"
            )
    return failures


_NO_TIME = datetime.min.replace(tzinfo=UTC)
"""Without locks nothing that is decided depends on the time."""


def changes(before: Iterable[Role], after: Iterable[Role]) -> Changes:
    """Which roles a new file adds, changes and removes."""
    old, new = {role.name: role for role in before}, {role.name: role for role in after}
    return Changes(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        tuple(sorted(old.keys() - new.keys())),
    )


# --- the file -------------------------------------------------------------------------------------------------


class _Parser:
    """Reads one file; keeps problems and goes on with the next entry, so that all of them are told at once."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []
        self._notes: list[str] = []

    def document(self, text: str) -> RolesDocument:
        try:
            found = self._document(compose(text))
        except Refused as refused:
            raise RolesError(self._file, [*self._problems, refused.problem]) from refused
        if self._problems:
            raise RolesError(self._file, self._problems)
        return found

    def _document(self, root: yaml.Node) -> RolesDocument:
        top = fields(root, "the file", required=("roles",), optional=("tests",))
        entries_ = items(top["roles"], "roles", may_be_empty=True)
        names = self._names(entries_)
        roles = self._each(entries_, lambda node: self._role(node, names))
        tests = items(top["tests"], "tests", may_be_empty=True) if "tests" in top else []
        return RolesDocument(
            file=self._file,
            roles=tuple(role for role, _ in roles),
            tests=tuple(self._each(tests, lambda node: _test(node, names))),
            requests={role.name: rules for role, rules in roles if rules},
            notes=tuple(self._notes),
        )

    def _each(self, nodes: Iterable[yaml.Node], read: Callable[[yaml.Node], T]) -> list[T]:
        """What *read* makes of each node; a node that is refused is left out and its problem kept."""
        found = []
        for node in nodes:
            try:
                found.append(read(node))
            except Refused as refused:
                self._problems.append(refused.problem)
        return found

    def _names(self, nodes: Iterable[yaml.Node]) -> frozenset[str]:
        """The names of all roles, so that one may name another that comes later. Duplicates are a problem."""
        first: dict[str, int] = {}
        for node in nodes:
            for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
                if key.value == "name" and isinstance(value, yaml.ScalarNode):
                    if value.value in first:
                        there = f"role {shown(value.value)} is there already, on line {first[value.value]}"
                        self._problems.append(Problem(line(value), there))
                    first.setdefault(value.value, line(value))
        return frozenset(first)

    def _role(self, node: yaml.Node, names: Collection[str]) -> tuple[Role, tuple[RequestRule, ...]]:
        optional = ("allow", "deny", "request", "audit", "certificate_ttl", "mfa")
        found = fields(node, "a role", required=("name",), optional=optional)
        name = _role_name(found["name"])
        allow = self._each(_list(found, "allow"), self._grant)
        role = Role(
            name=name,
            allow=tuple(grant for grant, _ in allow),
            deny=tuple(self._each(_list(found, "deny"), _deny)),
            audit=_audit(found["audit"]) if "audit" in found else AuditScope(),
            certificate_ttl=_certificate_ttl(found["certificate_ttl"]) if "certificate_ttl" in found else None,
            mfa=("mfa" in found and _mfa(found["mfa"], "mfa")) or any(mfa for _, mfa in allow),
        )
        rules = self._each(_list(found, "request"), lambda entry: _request(entry, names))
        if rules:
            self._note(found["request"], f"role {name}: requests are kept, and not carried out by this version")
        return role, tuple(rules)

    def _grant(self, node: yaml.Node) -> tuple[Grant, bool]:
        """The grant, and whether it wants a second factor: sign-in is for all grants, so that is up to the role."""
        found = fields(node, "a grant", required=("nodes", "logins", "actions"), optional=("options", "forward_to"))
        if "forward_to" in found:
            _check_forward_to(found["forward_to"])
        options, mfa = _options(found["options"]) if "options" in found else (Options(), False)
        grant = Grant(
            nodes=_nodes(found["nodes"]),
            logins=tuple(_login(text, at) for text, at in words(found["logins"], "logins")),
            actions=frozenset(_action(text, at) for text, at in words(found["actions"], "actions")),
            options=options,
        )
        if later := sorted(grant.actions - BUILT_ACTIONS):
            self._note(found["actions"], f"{', '.join(later)}: granted, and refused at the door by this version")
        return grant, mfa

    def _note(self, node: yaml.Node, text: str) -> None:
        self._notes.append(f"{self._file}:{line(node)}: {text}")


# --- entries --------------------------------------------------------------------------------------------------

_SECOND, _MINUTE, _DAY, _YEAR = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1), timedelta(days=366)
_MOST_RECORDED = 1 << 40
_FORWARD_TO = re.compile(r"(\[[0-9a-fA-F:]{2,45}\]|[A-Za-z0-9*?._-]{1,255}):(\*|[0-9]{1,5})\Z")
_EXPECTATIONS = ("allow", "deny", *(code.value for code in DenyCode if code is not DenyCode.LOCKED))


def _list(found: Mapping[str, yaml.Node], name: str) -> list[yaml.Node]:
    return items(found[name], name) if name in found else []


def _role_name(node: yaml.Node) -> str:
    name = word(node, "name")
    if not ROLE.match(name):
        raise Refused(node, f"name is {shown(name)}, expected lower-case letters, digits, '-', '_' and '.', at most 64")
    if name == ADMIN:
        raise Refused(node, f"{ADMIN} is built in and only administers: give rights on nodes to a role of another name")
    return name


def _certificate_ttl(node: yaml.Node) -> timedelta:
    return duration(node, "certificate_ttl", least=5 * _MINUTE, most=_DAY)


def _deny(node: yaml.Node) -> Grant:
    """A deny-entry: a field that is left out does not narrow it."""
    found = fields(node, "a deny-entry", optional=("nodes", "logins", "actions"))
    if not found:
        raise Refused(node, "a deny-entry has no field, expected nodes, logins or actions")
    logins = words(found["logins"], "logins") if "logins" in found else []
    for text, at in logins:
        if "{{" in text:
            raise Refused(at, f"login {shown(text)}: a deny-entry takes no templates, expected names such as root")
    actions = words(found["actions"], "actions") if "actions" in found else []
    return Grant(
        nodes=_nodes(found["nodes"]) if "nodes" in found else {},
        logins=tuple(_login(text, at) for text, at in logins),
        actions=frozenset(_action(text, at) for text, at in actions),
    )


def _mfa(node: yaml.Node, name: str) -> bool:
    return choice(node, name, ("login",), why=": asking again is not built") == "login"


def _options(node: yaml.Node) -> tuple[Options, bool]:
    """The options, and whether ``mfa`` is among them."""
    readers: dict[str, Callable[[yaml.Node, str], object]] = {
        "max_session": lambda value, name: duration(value, name, least=_SECOND, most=_YEAR),
        "idle": lambda value, name: duration(value, name, least=_SECOND, most=_YEAR),
        "lease": lambda value, name: duration(value, name, least=LEASE, most=_DAY),
        "on_expiry": lambda value, name: choice(value, name, ("keep", "end")),
        "record": lambda value, name: choice(value, name, ("strict",), why=": what cannot be recorded ends"),
        "record_input": boolean,
        "record_limit": lambda value, name: size(value, name, most=_MOST_RECORDED),
        "unsafe_unbound_client": boolean,
        "mfa": _mfa,
    }
    found = fields(node, "options", optional=tuple(readers))
    values = {name: readers[name](value, name) for name, value in found.items()}
    mfa = bool(values.pop("mfa", False))
    return Options(**values), mfa  # type: ignore[arg-type]  # each reader gives what its field takes


def _audit(node: yaml.Node) -> AuditScope:
    found = fields(node, "audit", optional=("recordings", "events"))
    if not found:
        raise Refused(node, "audit has no field, expected recordings or events")
    recordings = words(found["recordings"], "recordings") if "recordings" in found else []
    return AuditScope(
        recordings=tuple(_glob(text, at) for text, at in recordings),
        events="events" in found and choice(found["events"], "events", ("*", "true", "false")) != "false",
    )


def _request(node: yaml.Node, names: Collection[str]) -> RequestRule:
    found = fields(node, "a request-entry", required=("roles", "reviewers"), optional=("approvals", "max_duration"))
    longest = found.get("max_duration")
    return RequestRule(
        roles=tuple(_known_role(text, at, names) for text, at in words(found["roles"], "roles")),
        reviewers=tuple(_known_role(text, at, names) for text, at in words(found["reviewers"], "reviewers")),
        approvals=number(found["approvals"], "approvals", least=1, most=100) if "approvals" in found else 1,
        max_duration=duration(longest, "max_duration", least=_MINUTE, most=_YEAR) if longest else None,
    )


def _test(node: yaml.Node, names: Collection[str]) -> PolicyTest:
    found = fields(node, "a test", required=("user", "node", "login", "action", "expect"))
    login = word(found["login"], "login")
    if not LOGIN.match(login):
        raise Refused(found["login"], f"login {shown(login)}, expected an account name such as deploy")
    return PolicyTest(
        line=line(node),
        who=_test_user(found["user"], names),
        node=_test_node(found["node"]),
        login=login,
        action=_action(word(found["action"], "action"), found["action"]),
        expect=choice(found["expect"], "expect", _EXPECTATIONS),
    )


def _test_user(node: yaml.Node, names: Collection[str]) -> Identity:
    found = fields(node, "user", required=("name", "roles"), optional=("traits",))
    name = word(found["name"], "name")
    if not USER.match(name):
        raise Refused(found["name"], f"user {shown(name)}, expected a user name such as alice")
    traits = entries(found["traits"], "traits") if "traits" in found else []
    return Identity(
        user=name,
        roles=frozenset(
            _known_role(word(one, "a role"), one, {*names, ADMIN})
            for one in items(found["roles"], "roles", may_be_empty=True)
        ),
        traits={key: tuple(text for text, _ in words(value, f"trait {key}")) for key, _, value in traits},
    )


def _test_node(node: yaml.Node) -> Node:
    labels = {key: word(value, f"label {shown(key)[1:-1]}") for key, _, value in entries(node, "node")}
    name = labels.pop("name", "a-node")
    if not LABEL.match(name):
        raise Refused(node, f"node {shown(name)}, expected a node name such as web1")
    return Node(id=f"test-{name}", name=name, labels=labels)


# --- words ----------------------------------------------------------------------------------------------------

_KNOWN_ACTIONS = tuple(action.value for action in Action)
_SUBSYSTEM = re.compile(r"subsystem:[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_OTHER_ACTIONS = {
    "scp": "scp needs sftp.read to fetch and sftp.write to send: write these",
    "sftp": "write sftp.read, sftp.write or both",
    "subsystem:sftp": "write sftp.read, sftp.write or both",
    "*": "actions are written out, expected " + ", ".join(_KNOWN_ACTIONS),
}


def _nodes(node: yaml.Node) -> dict[str, tuple[str, ...]]:
    if not isinstance(node, yaml.MappingNode):
        raise Refused(node, 'nodes is not a set of labels, expected such as {env: [dev, staging]} or {name: "web*"}')
    found = {}
    for key, at, value in entries(node, "nodes"):
        if not LABEL_KEY.match(key):
            raise Refused(at, f"label {shown(key)}, expected letters, digits, '-', '_', '.' and '/', at most 63")
        found[key] = tuple(_glob(text, one) for text, one in words(value, f"label {shown(key)[1:-1]}"))
    if not found:
        raise Refused(node, 'nodes is empty, and empty never means all: for all nodes write {name: "*"}')
    return found


def _glob(text: str, at: yaml.Node) -> str:
    if len(text) > 256:
        raise Refused(at, "a pattern is longer than 256 characters")
    if any(one in text for one in "[]{}\\!"):
        raise Refused(at, f"pattern {shown(text)}: only * and ? are wildcards, expected one value or a list of values")
    return text


def _login(text: str, at: yaml.Node) -> str:
    if "{{" not in text and "}}" not in text:
        if LOGIN.match(text):
            return text
        if "*" in text or "?" in text:
            raise Refused(at, f"login {shown(text)}: logins are written out, only nodes take patterns")
        raise Refused(at, f'login {shown(text)}, expected an account name such as deploy, or "{{{{user.name}}}}"')
    found = TEMPLATE.search(text)
    around = TEMPLATE.sub("", text, count=1)
    if found is None or not (found[1] == "user.name" or found[1].startswith("traits.")) or "{{" in around:
        raise Refused(at, f"template {shown(text)}, expected one {{{{user.name}}}} or {{{{traits.KEY}}}}")
    if around and not re.fullmatch(r"[a-z0-9_.-]{1,31}", around):
        raise Refused(at, f"template {shown(text)}, expected only a-z, 0-9, '_', '.' and '-' around it")
    return text


def _action(text: str, at: yaml.Node) -> str:
    if text in _OTHER_ACTIONS:
        raise Refused(at, f"action {shown(text)}: {_OTHER_ACTIONS[text]}")
    if text in _KNOWN_ACTIONS or _SUBSYSTEM.match(text):
        return text
    known = ", ".join(_KNOWN_ACTIONS)
    raise Refused(at, f"unknown action {shown(text)}, expected {known} or subsystem:NAME{close(text, _KNOWN_ACTIONS)}")


def _known_role(text: str, at: yaml.Node, names: Collection[str]) -> str:
    if text not in names:
        raise Refused(at, f"there is no role {shown(text)} in this file{close(text, names)}")
    return text


def _check_forward_to(node: yaml.Node) -> None:
    """Destinations of forwards, for the version that carries them out."""
    for text, at in words(node, "forward_to"):
        if not _FORWARD_TO.match(text):
            raise Refused(at, f"forward_to is {shown(text)}, expected HOST:PORT, the port a number or *")
