"""
The data plane: it faces the network and holds no CA key.

The way of a connection, file by file: ``listener`` (socket, preamble) → ``ssh_adapter`` (SSH, sign-in, proof) →
``visit`` (who, and which node) → ``session`` (authorize, record, enter the node, relay, seal). Their pure rules are
``target``, ``channels``, ``relay``, ``limits``, ``penalties``, ``sftp`` and ``scp``; ``upstream`` is the node's side,
``authority`` the one client of the authority, ``serve`` the wiring.

Start reading at ``session.py``. Of ``ca`` only the words may be imported: model, errors, wire, sshcert, audit.
"""
