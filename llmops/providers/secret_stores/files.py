"""``file:/path``: a file on the host of the process that makes the call, inside one of ``SECRET_FILE_DIRS``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from django.conf import settings

from llmops.core.errors import InvalidRequest
from llmops.providers import secret_stores

_MOST_BYTES = 64 * 1024


def _directories() -> list[Path]:
    return [Path(directory).resolve() for directory in settings.SECRET_FILE_DIRS]


def check(reference: str) -> None:
    path = Path(reference)
    if not path.is_absolute() or ".." in path.parts or "\0" in reference:
        raise InvalidRequest(
            "reference: after file: comes the absolute path of a file, without '..'.", param="reference"
        )
    if not _allowed(path) or "kubernetes.io" in path.parts:
        allowed = ", ".join(str(directory) for directory in settings.SECRET_FILE_DIRS)
        raise InvalidRequest(
            f"reference: secret files must lie in one of these directories: {allowed}. "
            "CONSOLE_SECRET_DIRS names others.",
            param="reference",
        )


def _allowed(path: Path) -> bool:
    # Resolved, because a link inside the directory must not lead out of it; a Kubernetes mount links within itself.
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):
        return False
    return any(resolved.is_relative_to(directory) for directory in _directories())


def read(reference: str) -> str:
    try:
        # Without O_NONBLOCK a pipe would hold up the reader until somebody writes.
        handle = os.open(reference, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise secret_stores.SecretUnavailable(f"{reference} is not a regular file.")
            data = os.read(handle, _MOST_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise secret_stores.SecretUnavailable(
            f"The file {reference} cannot be read by this process: {error.strerror}."
        ) from None
    if len(data) > _MOST_BYTES:
        raise secret_stores.SecretUnavailable(f"The file {reference} is too large to be a key.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise secret_stores.SecretUnavailable(f"The file {reference} does not hold text.") from None
