"""Thousands of ECDSA signatures: short numbers and high bits, read by everybody who has to read them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import asyncssh

from ca import sshcert
from recordings.sshkey import as_line
from recordings.sshwire import string
from tests.ca import forge
from tests.journeys.test_certificate_differential import GOOD

BATCHES, BATCH = 10, 500


def test_five_thousand_ecdsa_signatures_verify_everywhere(tmp_path: Path) -> None:
    """KEY-04: by ssh-keygen and asyncssh, which check the CA's signature as they read, and by our own codec."""
    ca = forge.ecdsa()
    lengths: set[int] = set()
    for batch in range(BATCHES):
        lines = []
        for serial in range(batch * BATCH + 1, (batch + 1) * BATCH + 1):
            to_be_signed = replace(GOOD, serial=serial).to_be_signed(ca)
            signature = ca.sign(to_be_signed)
            lengths.add(len(signature))
            blob = to_be_signed + string(signature)
            ca.public.verify(to_be_signed, signature)
            assert sshcert.parse(blob).serial == serial
            lines.append(as_line("ssh-ed25519-cert-v01@openssh.com", blob))
            asyncssh.import_certificate(lines[-1])
        file = tmp_path / f"{batch}-cert.pub"
        file.write_text("\n".join(lines) + "\n")
        shown = subprocess.run(
            ["ssh-keygen", "-L", "-f", file], capture_output=True, text=True, timeout=300, check=False
        )
        assert shown.stdout.count("Serial: ") == BATCH, shown.stderr[-500:]
    assert len(lengths) >= 3
