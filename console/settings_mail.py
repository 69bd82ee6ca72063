"""Where e-mails go: to the server of ``EMAIL_URL``; without one, into files in the data directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import environ

_env = environ.Env()
_data_dir = Path(
    os.environ.get("CONSOLE_DATA_DIR") or Path(__file__).resolve().parent.parent / "var"
).absolute()
_server: dict[str, Any] = _env.email_url("EMAIL_URL") if os.environ.get("EMAIL_URL") else {}

EMAIL_BACKEND = _server.get("EMAIL_BACKEND", "django.core.mail.backends.filebased.EmailBackend")
EMAIL_FILE_PATH = _server.get("EMAIL_FILE_PATH") or str(_data_dir / "mail")
EMAIL_HOST = _server.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = _server.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = _server.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _server.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = bool(_server.get("EMAIL_USE_TLS"))
EMAIL_USE_SSL = bool(_server.get("EMAIL_USE_SSL"))
# Seconds; a mail server that hangs must not hold a worker for ever.
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = _env.str("CONSOLE_MAIL_FROM", default="llmops-console@localhost")
#: Where people reach the console, for the links in e-mails.
PUBLIC_URL = _env.str(
    "CONSOLE_PUBLIC_URL", default=f"http://127.0.0.1:{_env.int('PORT', default=8000)}"
).rstrip("/")
