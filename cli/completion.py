"""``bart completion`` and ``bartizan completion``: the script that makes a shell complete their words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli import output


def completion(program: str) -> click.Command:
    """The command that prints *program*'s completion script."""

    @click.command("completion")
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def command(context: click.Context, shell: str) -> None:
        maker = get_completion_class(shell)
        assert maker is not None  # one of click's own three
        output.block(maker(context.find_root().command, {}, program, f"_{program.upper()}_COMPLETE").source())

    command.help = f"Print the completion script for SHELL. For bash: source <({program} completion bash)"
    return command
