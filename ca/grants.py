"""
What one entry of a role says: which nodes it reaches, which logins it gives. Pure.

Two rules keep entries from saying more than was meant: empty never means all, and a template never gives a
privileged login.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ca.model import LOGIN, Grant, Identity, Node

# fmt: off
PRIVILEGED_LOGINS = frozenset(
    {
        "root", "toor", "admin", "administrator", "sudo", "wheel", "adm", "bin", "daemon", "sys",
        "operator", "nobody", "system", "docker", "lxd", "libvirt", "www-data", "postgres", "mysql",
        "oracle", "backup", "git", "jenkins", "ansible", "ubuntu", "debian", "ec2-user", "centos", "fedora",
        "rocky", "almalinux", "rhel", "alpine", "arch", "core", "cloud-user", "opc", "azureuser", "vagrant",
    }
)
# fmt: on
"""Accounts that systems make, and people do not. A template never gives them: the grant must write them out."""

TEMPLATE = re.compile(r"\{\{\s*([a-z]+\.[A-Za-z0-9_.-]{1,64})\s*\}\}")
"""``{{user.name}}`` or ``{{traits.KEY}}``."""


def reaches(grant: Grant, node: Node) -> bool:
    """Every label of the grant must match. A grant without labels reaches nothing: empty never means all."""
    return bool(grant.nodes) and _labels_match(grant, node)


def denies(entry: Grant, node: Node, login: str | None, action: str | None) -> bool:
    """Whether a deny-entry applies. A field that it leaves out does not narrow it: what is unclear denies."""
    return (
        _labels_match(entry, node)
        and (not entry.logins or login in entry.logins or any("{{" in written for written in entry.logins))
        and (not entry.actions or action in entry.actions)
    )


def logins(grant: Grant, who: Identity) -> tuple[str, ...]:
    """The logins that *grant* gives to *who*, in the order they are written.

    A template that cannot be resolved, or whose value is not a login name, gives nothing (CA-05); one that resolves
    to a privileged login gives nothing either, however the value came about (CA-10, CA-11).
    """
    found: dict[str, None] = {}
    for written in grant.logins:
        if "{{" in written:
            found.update(dict.fromkeys(login for login in expand(written, who) if not privileged(login)))
        elif LOGIN.match(written):
            found[written] = None
    return tuple(found)


def expand(template: str, who: Identity) -> tuple[str, ...]:
    """What *template* says for *who*: one login for each value of the trait; none when there is no value.

    Values are taken as they are: nothing is cut off at ``@``, folded to lower case or cleaned.
    """
    found = TEMPLATE.search(template)
    if found is None:
        return ()
    source, _, key = found[1].partition(".")
    values: Sequence[str] = ()
    if source == "user" and key == "name":
        values = (who.user,)
    elif source == "traits":
        values = who.traits.get(key, ())
    filled = (template[: found.start()] + value + template[found.end() :] for value in values)
    return tuple(login for login in filled if LOGIN.match(login))


def privileged(login: str) -> bool:
    """Whether *login* is an account that a template must never give."""
    return login in PRIVILEGED_LOGINS or login.startswith(("_", "systemd-"))


def matches(pattern: str, text: str) -> bool:
    """Whether *pattern* matches the whole of *text*: ``*`` is any run of characters, ``?`` one, the rest is itself."""
    at = star = 0
    mark = -1  # where in the text the last star's run ends; -1: no star yet
    place = 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, mark, place = place, at, place + 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            at, place = at + 1, place + 1
        elif mark >= 0:
            mark += 1
            at, place = mark, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def _labels_match(grant: Grant, node: Node) -> bool:
    labels = {**node.labels, "name": node.name}
    return all(
        key in labels and any(matches(pattern, labels[key]) for pattern in patterns)
        for key, patterns in grant.nodes.items()
    )
