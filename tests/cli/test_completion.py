"""The completion script is one that the shell itself takes, and it completes what there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_commands_and_options(cli, tmp_path: Path) -> None:
    said = cli("completion", "bash")
    assert said.code == 0
    (tmp_path / "script").write_text(said.out)

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {tmp_path / 'script'}; complete -p sfumato >/dev/null || exit 3; "
            f"f=$(complete -p sfumato | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; $f; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return {word.strip() for word in done.stdout.split()}

    assert {"train", "sample", "evaluate", "app"} <= completed("sfumato", "")
    assert completed("sfumato", "sam") == {"sample"}
    assert "--guidance" in completed("sfumato", "sample", "--gui")


def test_zsh_has_a_script_too(cli) -> None:
    said = cli("completion", "zsh")
    assert said.code == 0 and "#compdef" in said.out and "evaluate" in said.out
