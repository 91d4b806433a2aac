"""
What holds for every test: time is generous, the network is this machine, and nothing is written outside tmp_path.

Fixtures that start the whole product are at the end; they cost seconds, so each xdist worker starts it once.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.idp import Idp, running_idp
from tests.product import Person, Product, Site, running_product, running_site

# Two cores are shared by everything that runs here: how long one example took says nothing.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), print_blob=True)
settings.register_profile("long", settings.get_profile("default"), max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in tests/long is a long test; whatever hypothesis gives its values is a property."""
    long = Path(__file__).parent / "long"
    for item in items:
        if long in item.path.parents:
            item.add_marker(pytest.mark.long)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)


class LeftThisMachine(AssertionError):
    """A test tried to reach another machine."""


def _stay_here(event: str, args: tuple[object, ...]) -> None:
    """Audit hook: no test, and nothing that a test imports, leaves this machine; no name resolves."""
    match event, args:
        case (("socket.getaddrinfo" | "socket.gethostbyname"), (host, *_)):
            if host is not None and not _is_here(host):
                raise socket.gaierror(socket.EAI_NONAME, f"names do not resolve in tests: {host!r}")
        case (("socket.connect" | "socket.sendto"), (_, (host, *_))):  # a Unix socket has a path, not a tuple
            if not _is_here(host):
                raise LeftThisMachine(f"a test tried to reach {host!r}")


def _is_here(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name in ("", "localhost")
    return address.is_loopback or address.is_unspecified


sys.addaudithook(_stay_here)


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's own files or agent."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BART_HOME", str(tmp_path / "bart"))
    for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


# --- the whole product ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The product with people and nodes, shared by the tests of one worker: leave it as you found it."""
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def product(site: Site) -> Product:
    return site.product


@pytest.fixture
def alice(site: Site) -> Person:
    """A developer: may do everything that is built, as this login, on nodes with env=dev (``web1``, not ``db1``)."""
    return site.alice


@pytest.fixture
def carol(site: Site) -> Person:
    """An auditor: may read all recordings and enter no node."""
    return site.carol


@pytest.fixture
def root(site: Site) -> Person:
    """An administrator who is signed in like anybody else."""
    return site.root


@pytest.fixture
def own_product(tmp_path: Path) -> Iterator[Product]:
    """An empty product of this test alone, to be locked up, filled up or killed."""
    with running_product(tmp_path / "own") as running:
        yield running


# --- the identity provider ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _idp_of_this_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idp]:
    with running_idp(tmp_path_factory.mktemp("idp")) as running:
        yield running


@pytest.fixture
def idp(_idp_of_this_worker: Idp) -> Idp:
    """A real OpenID provider, without accounts until the test makes some."""
    _idp_of_this_worker.forget_accounts()
    return _idp_of_this_worker
