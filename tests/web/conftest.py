"""One Chromium for each module of stories, and the providers that the product knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.product import Product
from tests.web.browser import Chromium, running_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as running:
        yield running


@pytest.fixture
def page(chromium: Chromium, product: Product) -> Iterator[Page]:
    """A browser of this test alone, at the product's web door."""
    with chromium.person(product.web) as opened:
        yield opened
