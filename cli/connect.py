"""
The helper behind ``ssh web1``: dials the bastion, names the node in one line, hands the socket to ssh and exits.

Started by ssh itself (``ProxyCommand`` with ``ProxyUseFdpass yes``), so it must start fast: it is copied beside the
profile, imports nothing but these four modules and is run with ``python -I -S``. It never sees a key or a password.

    connect.py HOST PORT NODE [CLUSTER]   dial; ssh gets the connected socket over standard output
    connect.py --ask NODE CLUSTER         called by ssh_config for a name under .CLUSTER that was not reachable at the
                                          last sign-in: writes the block for it, so that the bastion can say why not
"""

# pathlib takes longer to import than everything here takes to run.

import array
import os
import socket
import sys

CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
TIMEOUT = 15.0


def main(arguments: "list[str]") -> int:
    if len(arguments) == 3 and arguments[0] == "--ask":
        return _ask(arguments[1], arguments[2])
    if len(arguments) not in (3, 4):
        return _fail("usage: connect.py HOST PORT NODE [CLUSTER]")
    host, port, typed = arguments[:3]
    node = label(typed, arguments[3] if len(arguments) == 4 else "bartizan")
    if node is None:
        return _fail(f"{typed!r} is not a node name: lower-case letters, digits and '-'")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT) as bastion:
            bastion.settimeout(None)
            bastion.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bastion.sendall(f"bartizan/1 {node}\n".encode("ascii"))
            return _hand_over(bastion)
    except (OSError, ValueError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        return _fail(f"cannot reach the bastion at {host}:{port}: {reason}; is it running? bart status tells more")


def label(typed: str, cluster: str) -> "str | None":
    """The node's label in what was typed, or None when it cannot be one (RFC 1123: one DNS label)."""
    name = typed.lower()
    if name.endswith("." + cluster):
        name = name[: -len(cluster) - 1]
    if not 0 < len(name) <= 63 or name[0] == "-" or name[-1] == "-":
        return None
    return name if CHARACTERS.issuperset(name) else None


def _hand_over(bastion: socket.socket) -> int:
    """Pass the connected socket to ssh, which reads it from our standard output."""
    try:
        with socket.socket(fileno=os.dup(1)) as ssh:
            ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [bastion.fileno()]))])
    except OSError:
        return _fail("standard output is no socket: ssh has to start this with 'ProxyUseFdpass yes'")
    return 0


def _ask(typed: str, cluster: str) -> int:
    """Write the block of ssh_config and the line of known_hosts for one more name, from the templates beside us."""
    node = label(typed, cluster)
    if node is None:
        return 1  # ssh goes on with the ProxyCommand, which says why
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "asked")
    try:
        for kind in ("known_hosts", "conf"):
            with open(os.path.join(folder, f"template.{kind}.in"), encoding="ascii") as template:
                _replace(os.path.join(folder, f"{node}.{kind}"), template.read().replace("@NODE@", node))
    except OSError as error:
        return _fail(f"cannot write in {folder}: {error.strerror}")
    return 0


def _replace(path: str, text: str) -> None:
    """Atomic, readable by the owner alone: ssh refuses a config that others can write."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    os.replace(temporary, path)


def _fail(reason: str) -> int:
    sys.stderr.write(f"bartizan: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
