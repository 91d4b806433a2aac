"""
The evidence: recordings of SSH channels as files that outlive us, and the SSH formats that they are signed with.

Knows neither users nor policy, and imports nothing of the other rooms. Start with ``format`` (the lines of a channel)
and ``folder`` (what lies where); then ``writer`` (live), ``recovery`` (after a crash), ``seal`` (chain and manifest),
``reader`` (read, verify), ``player`` (timing), ``terminal`` (what may reach an auditor's terminal), ``screen`` (what a
person saw), ``retention`` (how long).

For others to import: all but ``frames``, which is ours. The bastion needs ``writer``, ``recovery``, ``folder``,
``format`` and the codecs (``sshwire``, ``sshkey``, ``sshsig``, ``keyfile``); an auditor ``reader``, ``seal``.
"""
