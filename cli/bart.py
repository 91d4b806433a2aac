"""``bart``: what people use. Each command is in a file of its own; this one only gathers them."""

from __future__ import annotations

import click

from cli import clusters, completion, config, login, logout, ls, play, recordings, second_factor, sessions, ssh, status
from cli.output import Program


@click.group(cls=Program, name="bart")
@click.version_option(package_name="bartizan", message="%(version)s")
@click.option(
    "--cluster",
    metavar="NAME",
    envvar="BART_CLUSTER",
    shell_complete=clusters.names,
    help="Which cluster is meant, when you are signed in at several. Default: the first. Also: $BART_CLUSTER.",
)
def bart(cluster: str | None) -> None:
    """Sign in, reach nodes with plain ssh, and see what was recorded."""


for command in (
    login.login,
    logout.logout,
    status.status,
    clusters.clusters,
    ls.ls,
    ssh.ssh,
    config.config,
    sessions.own,
    play.play,
    recordings.recordings,
    second_factor.second_factor,
    completion.completion("bart"),
):
    bart.add_command(command)


def main() -> None:
    bart()


if __name__ == "__main__":
    main()
