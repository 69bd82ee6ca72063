"""``python -m tests``: both halves of the suite at once, because every second test waits and the other half can work.

Arguments go to both. The second half's output is shown when the first has ended; the last line is the closing line of
pytest, of a half that is red if there is one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.backends import BACKENDS


def main(arguments: list[str]) -> int:
    colour = [f"--color={'yes' if sys.stdout.isatty() else 'auto'}"]
    with tempfile.TemporaryDirectory(prefix="console-suite-") as directory:
        said = {backend: Path(directory) / backend for backend in BACKENDS}
        halves = {}
        for backend, path in said.items():
            with path.open("wb") as output:
                halves[backend] = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "pytest",
                        "--backend",
                        backend,
                        "--forks",
                        "auto",
                        *colour,
                        *arguments,
                    ],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        try:
            for backend, half in halves.items():
                _show(said[backend], half)
        except KeyboardInterrupt:
            # It reached them as well, and they take their processes down.
            for half in halves.values():
                half.wait()
            return 130
        red = [backend for backend, half in halves.items() if half.returncode]
        if red and red[-1] != list(halves)[-1]:
            sys.stdout.write(said[red[-1]].read_text(errors="replace").splitlines(keepends=True)[-1])
        return max((halves[backend].returncode for backend in red), key=abs, default=0)


def _show(path: Path, half: subprocess.Popen[bytes]) -> None:
    """Pass on what is written to ``path`` until its writer has ended."""
    with path.open("rb") as said:
        ended = False
        while True:
            if text := said.read():
                sys.stdout.buffer.write(text)
                sys.stdout.buffer.flush()
            elif ended:
                return
            else:
                try:
                    half.wait(0.2)
                    ended = True
                except subprocess.TimeoutExpired:
                    continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
