"""
The data plane: it faces the network and holds no CA key.

The way of a connection, file by file: ``listener`` (socket, preamble) → ``ssh_adapter`` (SSH, sign-in, proof) →
``session`` (authorize, record, open the node, relay, seal) with ``target``, ``channels``, ``relay``, ``limits``, ``sftp`` and ``scp``
as its pure rules, ``upstream`` for the node's side and ``authority`` for the one client of the authority.

Start reading at ``session.py``. Of ``ca`` only the words may be imported: model, errors, wire, sshcert, audit.
"""
