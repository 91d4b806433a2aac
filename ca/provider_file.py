"""
An identity provider's file: strict parsing, and what is made of the claims of somebody who signed in. Pure.

Empty never means all: who may sign in is always written out. Names are taken as they are, or from the file's own table;
nothing is folded, cut or cleaned, so that no two identities become one person (docs/reference/provider-file.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the claims make: the name, the roles and traits held now, and the line of the file behind each part."""

    user: str
    roles: frozenset[str]
    traits: Mapping[str, tuple[str, ...]]
    lines: tuple[str, ...] = ()
