"""Revisions: what is live and was, publishing, going back, bringing and taking away; switches of the organisation."""

from llmops.serving.admin import brought, revisions  # noqa: F401
