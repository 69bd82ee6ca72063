"""Accounts of people who sign in with OpenID Connect: made with the first sign-in, with the roles that follow from their groups."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import transaction

from llmops.access.models import Membership, OidcIdentity, Project
from llmops.access.services.members import add_member, remove_member
from llmops.access.services.people import create_user
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, PermissionDenied

if TYPE_CHECKING:
    from llmops.access.oidc import Identity

log = logging.getLogger(__name__)

#: Who changes roles when groups have changed: the provider, by way of a sign-in.
OIDC = Actor(kind="system", identifier="oidc", name="sign-in by OpenID Connect")


@transaction.atomic
def account_of(identity: Identity) -> Any:
    """The account of ``identity``, which is known by issuer and subject and never by a name; its roles are brought in step.

    Raises ``PermissionDenied`` for an account that is closed, or whose name belongs to somebody else here.
    """
    known = (
        OidcIdentity.objects.select_for_update()
        .filter(issuer=identity.issuer, subject=identity.subject)
        .first()
    )
    if known is None:
        user = _made(identity)
        OidcIdentity.objects.create(user=user, issuer=identity.issuer, subject=identity.subject)
    else:
        user = known.user
    if not user.is_active:
        raise PermissionDenied("Your account here is closed. Ask an administrator.")
    _bring_in_step(user, identity)
    return user


def _made(identity: Identity) -> Any:
    if get_user_model().objects.filter(username__iexact=identity.username).exists():
        # By its name alone somebody could become somebody else.
        raise PermissionDenied(
            f"There is an account {identity.username} here already, which is not yours by this sign-in. Ask an administrator to "
            "rename or close it."
        )
    return create_user(
        OIDC,
        username=identity.username,
        email=identity.email,
        first_name=identity.first_name,
        last_name=identity.last_name,
    )


def _bring_in_step(user: Any, identity: Identity) -> None:
    projects = {one.slug: one for one in Project.objects.filter(archived_at=None)}
    wanted = {
        (role, projects[slug].pk if slug else None)
        for role, slug in identity.grants
        if slug is None or slug in projects
    }
    present = {(one.role, one.project_id): one for one in Membership.objects.filter(user=user)}
    by_id = {one.pk: one for one in projects.values()}
    for role, project in sorted(wanted - set(present), key=str):
        add_member(OIDC, user=user, project=by_id.get(project) if project else None, role=role)
    for gone in sorted(set(present) - wanted, key=str):
        try:
            with transaction.atomic():
                remove_member(OIDC, membership=present[gone])
        except Conflict as kept:
            log.warning("%s keeps a role that no group gives any more: %s", user, kept.message)
