"""The processes of ``./dev run`` without the one that watches them, for whoever is after what they do and not how they start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from console.embedded import answers, children_of, environment_of, write_private
from tests import launcher
from tests.e2e.test_embedded import Embedded, wait_until
from tests.installation import Process
from tests.templates import Template


class Unwatched(Embedded):
    """Started from packages that are loaded already, and with tables that are there; ``kill`` is its end."""

    def __init__(self, home: Path, template: Template) -> None:
        super().__init__(home)
        self._template = template
        self.processes: list[Process] = []

    def start(self) -> None:
        simulator = self.port + 1
        self.data_dir.mkdir(mode=0o700)
        (self.data_dir / "simulator.port").write_text(str(simulator))
        keys = (f"{name}={os.environ[name]}\n" for name in ("CONSOLE_SECRET_KEY", "CONSOLE_MASTER_KEYS"))
        write_private(self.data_dir / "keys.env", "".join(keys))
        if self._template.url.startswith("sqlite"):
            self._template.fill(str(self.data_dir / "console.sqlite3"))
        env = {**self.env, **environment_of(self.data_dir, self.port, simulator)}
        background = {"CONSOLE_BACKGROUND": "1"}
        filled = launcher.run([sys.executable, "manage.py", "bootstrap"], env=env | background)
        assert filled.returncode == 0, filled.stdout + filled.stderr
        for name, child in children_of("127.0.0.1", self.port, simulator).items():
            log = self.home / f"{name}.log"
            self.processes.append(Process(child.command, name=name, log=log, env=env | child.environment))
        wait_until(self.is_ready, self._not_ready, timeout=300)

    def is_ready(self) -> bool:
        ended = [process.name for process in self.processes if process.returncode is not None]
        assert not ended, f"{ended} ended\n{self._not_ready()}"
        return answers(self.port, "/readyz") and answers(self.port + 1, "/healthz")

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def _not_ready(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in self.processes)
