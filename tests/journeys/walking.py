"""Walk a path as a person does: run a command, read what it prints under "Next:", and run that as printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

LISTED = re.compile(r"^  (sfumato .+?)(?:   .*)?$", re.MULTILINE)


@dataclass
class Walk:
    """The commands of one journey, in one folder.

    Attributes:
        folder: Where they run.
        environment: What they see beside the test's own environment.
        log: A line a command: exit code, wall time, peak memory, the command.
        ended: Commands that did not end as they should, with what they printed.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def run(self, command: str, codes: tuple[int, ...] = (0,)) -> list[str]:
        """Run a command as printed and return the commands that it prints under "Next:".

        Arguments:
            command: As a person types it; `sfumato app` is opened, asked for its page and ended by Ctrl-C.
            codes: Exit codes that are no dead end.
        """
        program, *words = shlex.split(command)
        assert program in ("sfumato", "python"), command
        app = words[0] == "app"
        said = self.folder / "said.txt"
        source = str(Path(__file__).parents[2] / "src")
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **self.environment}
        began = time.monotonic()
        with said.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *(("-m", "sfumato") if program == "sfumato" else ()), *words, *["--port=0"] * app],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            )  # fmt: skip
            if app:
                self._visit(process, said)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        took, peak = time.monotonic() - began, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
        text = said.read_text()
        self.log.append(f"exit {code}  {took:6.1f} s  {peak:5.2f} GiB  {command}")
        print(self.log[-1], flush=True)
        if code not in ((130,) if app else codes) or "Traceback" in text:
            self.ended.append(f"{command}\n{text[-3000:]}")
        return LISTED.findall(text.rpartition("\nNext:\n")[2]) if "\nNext:\n" in text else []

    def follow(self, first: list[str], most: int = 40) -> None:
        """Run commands and all that they print, each once, first come first served.

        Arguments:
            first: Where to begin.
            most: Commands at most; more would be a path without an end.
        """
        waiting, seen = deque(first), set(first)
        while waiting:
            assert len(self.log) < most, "\n".join(self.log)
            for command in self.run(waiting.popleft()):
                if command not in seen:
                    seen.add(command)
                    waiting.append(command)

    def check(self) -> None:
        """Fail if any command was a dead end."""
        print(f"{len(self.log)} commands, {len(self.ended)} dead ends")
        assert not self.ended, "\n\n".join(self.ended)

    def done(self, *names: str) -> None:
        """Fail if no command of a name has been run."""
        for name in names:
            assert any(f"  sfumato {name}" in line for line in self.log), f"nothing led to `sfumato {name}`"

    def _visit(self, process: subprocess.Popen[bytes], said: Path) -> None:
        end = time.monotonic() + 300
        while not (found := re.search(r"http://\S+", said.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                return
            time.sleep(0.1)
        with urlopen(found[0], timeout=60) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
