"""Installs the packages of a lock file: ``python install.py LOCK [INTERPRETER]``, for that interpreter or for the one that runs this.

By uv, which takes a quarter of pip's time: the one on the PATH, or the one that pip installs from ``requirements-uv.lock``. By
pip where there is no uv for a machine, or where uv does not get what pip gets. Either way nothing comes in but wheels whose
hashes the lock file holds. Exit status 0 when all are installed; what went wrong is on standard error.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip"]
QUIET = ["-qq", "--disable-pip-version-check", "--no-input"]
LOCKED = ["--require-hashes", "--only-binary", ":all:"]
#: Where packages are to be had and how they are reached, as pip is told it and as uv is.
_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
#: Later ones count more, as they do for pip.
_SECTIONS = ("global", "install", ":env:")
_SEPARATED_BY_COMMAS = ("UV_FIND_LINKS",)


def settings_for_uv(listed: str) -> dict[str, str]:
    """Environment variables that tell uv what ``pip config list`` printed; uv itself reads nothing of pip's."""
    found: dict[str, str] = {}
    for section in _SECTIONS:
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            of, _, setting = name.rpartition(".")
            if of == section and (known := _SETTINGS.get(setting)):
                words = str(ast.literal_eval(value)).split()
                found[known] = ("," if known in _SEPARATED_BY_COMMAS else " ").join(words)
    return found


def uv() -> str | None:
    """The uv to install with; None when there is none and pip cannot get it."""
    here = Path(sys.executable).with_name("uv")
    if found := shutil.which("uv") or (here.is_file() and str(here)):
        return found
    command = [*PIP, "install", *QUIET, "--retries", "1", *LOCKED, "-r", str(ROOT / "requirements-uv.lock")]
    done = subprocess.run(command, capture_output=True, check=False)
    return str(here) if done.returncode == 0 and here.is_file() else None


def by_uv(tool: str, lock: str, interpreter: str) -> bool:
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
    # As pip looks for a package: on all that it knows of. The hashes say whether it is the one.
    env = {"UV_INDEX_STRATEGY": "unsafe-best-match"} | settings_for_uv(listed) | os.environ
    command = [tool, "pip", "install", "--quiet", "--python", interpreter, *LOCKED, "--compile-bytecode"]
    return subprocess.run([*command, "-r", lock], env=env, check=False).returncode == 0


def main(lock: str, interpreter: str = sys.executable) -> int:
    tool = uv()
    if tool:
        if by_uv(tool, lock, interpreter):
            return 0
        sys.stderr.write("uv could not install them; its reason is above. Trying with pip.\n")
    command = [*PIP, "--python", interpreter, "install", *QUIET, *LOCKED, "-r", lock]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
