"""Whether e-mails leave the installation at all."""

from __future__ import annotations

from django.conf import settings

_FILES = "django.core.mail.backends.filebased.EmailBackend"


def mail_note() -> str:
    """A sentence for the pages where people ask for e-mails, if no mail server is set; else empty."""
    if settings.EMAIL_BACKEND != _FILES:
        return ""
    return "No mail server is set (EMAIL_URL): e-mails are not sent, but written as files into mail/ of the data directory."
