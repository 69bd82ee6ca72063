"""What an event is about, as its pages call it, and where that is."""

from __future__ import annotations

from django.apps import apps
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst

from llmops.audit.models import Event


def kind_named(object_type: str) -> str:
    """The kind of thing, as its pages call it."""
    try:
        return str(apps.get_model(object_type)._meta.verbose_name)
    except (LookupError, ValueError):
        return object_type.rpartition(".")[2].replace("_", " ")


def kind_of(event: Event) -> str:
    return kind_named(event.object_type)


def address_of(event: Event) -> str | None:
    """Where the object of ``event`` is shown, if its kind has a page. The page decides who may see it."""
    try:
        model = apps.get_model(event.object_type)
        return reverse(
            f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[event.object_id]
        )
    except (LookupError, ValueError, NoReverseMatch):
        return None


def in_words(action: str) -> str:
    """``service_key.changed`` as ``Service key changed``."""
    return str(capfirst(action.replace(".", " ").replace("_", " ")))
