"""Evidence outlives us: what ``how-to/check-a-recording.md`` tells an auditor to type, typed without the product."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.product import Person

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "check-a-recording.md"


def test_an_auditor_checks_a_recording_with_nothing_of_ours(alice: Person, carol: Person, tmp_path: Path) -> None:
    alice.ssh("web1", "echo", "the evidence")
    session = carol.recordings()[0]["id"]
    carol.bart("recordings", "export", session, "--output", tmp_path / "evidence")
    written = re.findall(r"^    (.+(?:\n    .+)*)$", PAGE.read_text(), flags=re.MULTILINE)
    boxes = [re.sub(r"^    ", "", box, flags=re.MULTILINE) for box in written]
    typed = [box for box in boxes if not box.startswith(("bart ", "bartizan "))]  # those get the evidence; we have it
    script = "\n".join(["set -euo pipefail", *typed]).replace(
        "-I PRINCIPAL", '-I "$(ssh-keygen -Y find-principals -f allowed_signers -s manifest.json.sig)"'
    )
    script = script.replace("asciinema play -", "cat")  # a terminal is needed for playing, not for checking
    (tmp_path / "typed.sh").write_text(script)

    stock = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    result = subprocess.run(
        ["bash", "typed.sh"],
        cwd=tmp_path,
        env=stock,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
    assert result.stdout.count('Good "bartizan-recording" signature') == 2
    assert ": OK" in result.stdout
    assert "the evidence" in result.stdout
