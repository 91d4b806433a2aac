"""
The authority: the only holder of CA private keys, and the one place where access is decided.

Rules and formats are pure (``model``, ``policy``, ``roles``, ``sshcert``, ``certificate``, ``proof``, ``audit``);
I/O is around them (``store/``, ``api/``, ``serve``). The bastion may import ``model``, ``errors``, ``wire``,
``sshcert`` and ``audit`` alone. Start reading at ``issue.py`` (one certificate) and ``sessions.py`` (one session).
"""
