"""What stories with the real OpenID provider share: it is made known to the product, and a person is at its pages."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from tests.idp import PASSWORD, Idp
from tests.journeys.stage import operator
from tests.product import Product

FILE = """\
name: {name}
title: {title}
kind: oidc
issuer: {issuer}
client: {client}
scopes: [openid, profile, email, groups, offline_access]
user: preferred_username
allow: [{{groups: [staff]}}]
roles:
  - {{when: {{groups: [sre]}}, roles: [developer]}}
traits: {{team: groups}}
"""


def apply(product: Product, idp: Idp, name: str, title: str) -> None:
    text = FILE.format(name=name, title=title, issuer=idp.issuer, client=idp.client)
    with operator(product) as door:
        answer = door.put("/v1/idp", json={"text": text, "secret": idp.secret})
    assert answer.is_success, answer.text


def at_provider(page: Page, name: str) -> None:
    """What a person does on the provider's own pages."""
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button").first.click()
    if "/interaction/" in page.url:
        page.get_by_role("button", name=re.compile("continue|allow|yes", re.IGNORECASE)).click()
