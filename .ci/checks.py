"""Checks of files that no linter knows: the lock files and the compose file.

``python .ci/checks.py lock | lock-header | compose``; exit status 1 and a sentence for each thing that is wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Each but the last holds at least what the one before holds; the last is of what installs them.
LOCKS = ("requirements.lock", "requirements-otel.lock", "requirements-dev.lock", "requirements-uv.lock")


def lock_header() -> str:
    """The first lines of a lock file; they carry a digest of everything in pyproject.toml that decides its content."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "python": pyproject["project"]["requires-python"],
        "dependencies": pyproject["project"]["dependencies"],
        "extras": pyproject["project"].get("optional-dependencies", {}),
        "groups": pyproject["dependency-groups"],
    }
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return f"# Compiled from pyproject.toml by `./dev lock`; not edited by hand.\n# wanted: sha256:{digest}\n"


def wrong_locks() -> Iterator[str]:
    for name in LOCKS:
        text = (ROOT / name).read_text()
        if not text.startswith(lock_header()):
            yield f"{name} was compiled from other dependencies than pyproject.toml names. Run ./dev lock and commit it."
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"\s*-(?!-hash=sha256:)", line) or "://" in line or " @ " in line:
                yield f"{name}:{number}: only pinned names and hashes belong in a lock file, this is: {line.strip()}"
    pins = {
        name: dict(re.findall(r"^(\S+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS
    }
    for smaller, larger in itertools.pairwise(LOCKS[:-1]):
        for package, version in pins[smaller].items():
            if (other := pins[larger].get(package)) != version:
                yield f"{package} is {version} in {smaller} and {other} in {larger}. Run ./dev lock."


def wrong_compose() -> Iterator[str]:
    import yaml

    path = ROOT / "docker-compose.yml"
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text())
    except yaml.YAMLError as problem:
        yield f"{path.name} is not YAML: {problem}"
        return
    services: dict[str, Any] = document.get("services") or {}
    known = {"name", "services", "volumes", "networks", "secrets", "configs"}
    for key in document:
        if key not in known and not key.startswith("x-"):
            yield f"{path.name}: {key!r} is not a top-level key of a compose file"
    for name, service in services.items():
        if not ("image" in service or "build" in service):
            yield f"{path.name}: service {name} has neither an image nor a build"
        if "build" in service and not (ROOT / "Dockerfile").is_file():
            yield f"{path.name}: service {name} is built, and there is no Dockerfile"
        for other, condition in (service.get("depends_on") or {}).items():
            if other not in services:
                yield f"{path.name}: service {name} depends on {other}, which is not there"
            elif condition["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{path.name}: service {name} waits for {other} to be healthy, and {other} has no healthcheck"
        for mount in service.get("volumes") or []:
            source = str(mount).partition(":")[0]
            if re.match(r"\w", source) and source not in (document.get("volumes") or {}):
                yield f"{path.name}: service {name} mounts the volume {source}, which is not declared"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["lock-header"]:
            sys.stdout.write(lock_header())
            return 0
        case ["lock"]:
            problems = list(wrong_locks())
        case ["compose"]:
            problems = list(wrong_compose())
        case _:
            problems = [__doc__ or ""]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
