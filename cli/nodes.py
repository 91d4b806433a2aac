"""``bartizan nodes``: the hosts that may be reached, as an administrator sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ca import wire
from ca.errors import InvalidInput
from cli import output, sshd_config
from cli.parameters import ADDRESS, DURATION, labels
from cli.profile import replace_files
from cli.way_in import WayIn, pass_way

SOON = timedelta(days=14)
PATHS = sshd_config.Paths()


@click.group()
def nodes() -> None:
    """Add, certify, list and remove nodes."""


@nodes.command()
@click.argument("name")
@click.option("--address", type=ADDRESS, required=True, help="Where its sshd answers the bastions.")
@click.option("--label", "words", multiple=True, metavar="KEY=VALUE", help="For roles to match. May be repeated.")
@click.option(
    "--host-key",
    "host_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Pin this public key file, for a node without a host certificate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the node as JSON.")
@pass_way
def add(
    way: WayIn, name: str, address: str, words: tuple[str, ...], host_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Add the node NAME. Then either certify its host key or have pinned one with --host-key."""
    new = wire.NewNode(
        name=name, address=address, labels=labels(words), host_keys=[key_line(path) for path in host_keys]
    )
    with way.open() as authority:
        added = authority.add_node(new)
    if as_json:
        output.as_json(added)
        return
    output.note(f"added {added.name} at {added.address}")
    if not added.pinned:
        output.hint(f"{way.program} nodes certify {added.name} ssh_host_ed25519_key.pub")


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@pass_way
def list_(way: WayIn, as_json: bool) -> None:
    """List nodes, and when their host certificates run out."""
    with way.open() as authority:
        known = authority.nodes()
    if as_json:
        output.as_json(known)
        return
    now = datetime.now(UTC)
    output.table(
        ("node", "address", "labels", "id", "host identity"),
        ([node.name, node.address, node.labels, node.id, _identity(node, now)] for node in known),
        empty=f"no node yet: {way.program} nodes add NAME --address HOST:PORT",
    )
    late = [node.name for node in known if node.certificate_expires and node.certificate_expires < now + SOON]
    if late:
        output.warning(f"host certificates run out within {SOON.days} days: {', '.join(late)}")


@nodes.command()
@click.argument("name")
@pass_way
def remove(way: WayIn, name: str) -> None:
    """Remove the node NAME. Live sessions on it end at once."""
    with way.open() as authority:
        authority.remove_node(name)
    output.note(f"removed {name}")


@nodes.command()
@click.argument("name")
@click.argument("key", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@pass_way
def certify(way: WayIn, name: str, key: Path) -> None:
    """Vouch that KEY (a .pub file) is a host key of NAME. Writes the certificate beside it, good for a year."""
    certificate = certificate_path(key)
    with way.open() as authority:
        made = authority.certify_node(name, wire.CertifyNode(public_key=key_line(key)))
    replace_files(certificate.parent, {certificate.name: f"{made.certificate}\n"}, mode=0o644)
    output.note(f"certified until {output.when(made.expires)}")
    output.hint(f"{way.program} nodes sshd-config {name}   (what its sshd must know)")
    output.data(str(certificate))


@nodes.command("sshd-config")
@click.argument("name")
@click.option("--trusted-ca", default=PATHS.trusted_ca, show_default=True, help="Where the target CA's key will lie.")
@click.option(
    "--host-certificate",
    "host_certificates",
    multiple=True,
    default=PATHS.host_certificates,
    show_default=True,
    help="Where a host certificate lies. May be repeated.",
)
@click.option("--revoked-keys", default=PATHS.revoked_keys, show_default=True, help="Where revoked keys will lie.")
@click.option("--principals-file", help="AuthorizedPrincipalsFile instead of a command: for an sshd that is not root.")
@pass_way
def sshd_config_(
    way: WayIn,
    name: str,
    trusted_ca: str,
    host_certificates: tuple[str, ...],
    revoked_keys: str,
    principals_file: str | None,
) -> None:
    """Print the lines that NAME's sshd_config needs, and what each file must hold."""
    paths = sshd_config.Paths(trusted_ca, host_certificates, revoked_keys, principals_file)
    with way.open() as authority:
        trust = authority.node_trust(name)
    output.block(sshd_config.lines(trust, paths, explain=True, unused_timeout=False))


@nodes.command("join-token")
@click.option("--name", help="The name, or a pattern for it, that the joining host must have.")
@click.option("--label", "words", multiple=True, metavar="KEY=VALUE", help="A label the node gets. May be repeated.")
@click.option("--replace", is_flag=True, help="Let it take the place of a node of that name.")
@click.option("--ttl", type=DURATION, default="1h", show_default=True, help="How long the token is good.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_way
def join_token(
    way: WayIn, name: str | None, words: tuple[str, ...], replace: bool, ttl: timedelta, as_json: bool
) -> None:
    """Make a token with which one host joins, once: `bartizan node join` there."""
    wanted = wire.NewJoinToken(name=name, labels=labels(words), replace=replace, ttl_seconds=int(ttl.total_seconds()))
    with way.open() as authority:
        made = authority.join_token(wanted)
    if as_json:
        output.as_json(made)
        return
    output.note(f"good once, until {output.when(made.expires)}")
    output.data(made.token)


def key_line(path: Path) -> str:
    """The one public key in the file *path*. Raises InvalidInput when it is a private key or anything else."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if "PRIVATE KEY" in text:
        raise InvalidInput(f"{path} is a private key: it must not leave its host", hint=f"give {path}.pub instead")
    keys = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if len(keys) != 1:
        raise InvalidInput(f"{path} must hold exactly one public key, and holds {len(keys)} lines")
    return keys[0]


def certificate_path(key: Path) -> Path:
    """Where OpenSSH looks for the certificate of the public key file *key*."""
    return key.with_name(f"{key.name.removesuffix('.pub')}-cert.pub")


def _identity(node: wire.NodeView, now: datetime) -> str:
    if node.certificate_expires is not None:
        gone = node.certificate_expires <= now
        return f"certificate {'expired' if gone else 'until'} {output.when(node.certificate_expires)}"
    return "pinned key" if node.pinned else "none yet"
