"""What roles and scopes add up to, as a table and at the edges."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from llmops.access.models import Project, ServiceKey
from llmops.access.rules import ORGANISATION_WIDE, PERMISSIONS, ROLES, SCOPE_PERMISSIONS
from llmops.access.selectors import (
    POWERLESS,
    Powers,
    may,
    may_anywhere,
    powers_of,
    powers_of_actor,
    powers_of_roles,
    projects_for,
    visible,
)
from llmops.base.requests import NOBODY, user_actor
from llmops.core.actors import SYSTEM, Actor
from tests.cast import issue, person

pytestmark = pytest.mark.django_db
# operator reviewer finance auditor admin
TABLE = {
    "project.view": "ORFAX",
    "project.manage": "X",
    "member.view": "AX",
    "member.manage": "X",
    "service_key.view": "OAX",
    "service_key.manage": "OX",
    "provider.view": "OAX",
    "provider.manage": "OX",
    "model.view": "OFAX",
    "model.manage": "OX",
    "price.manage": "OFX",
    "route.view": "OFAX",
    "route.manage": "OX",
    "policy.view": "ORAX",
    "policy.manage": "OX",
    "prompt.view": "ORAX",
    "prompt.manage": "OX",
    "tool.view": "ORAX",
    "tool.manage": "OX",
    "action.view": "ORAX",
    "action.propose": "ORX",
    "action.approve": "RX",
    "action.resolve": "RX",
    "playground.use": "OX",
    "revision.view": "OAX",
    "revision.publish": "OX",
    "revision.approve": "ORX",
    "budget.view": "OFAX",
    "budget.manage": "FX",
    "budget.request": "OFX",
    "budget.approve": "FX",
    "approval.view": "ORFAX",
    "approval.decide": "ORFX",
    "run.view": "ORAX",
    "run.start": "OX",
    "alert.view": "OFAX",
    "alert.respond": "OX",
    "alert.manage": "OX",
    "usage.view": "OFAX",
    "text.read": "OX",
    "dataset.view": "ORAX",
    "dataset.manage": "OX",
    "usage.rebuild": "FX",
    "outcome.report": "OX",
    "export.manage": "FX",
    "usage.correct": "FX",
    "audit.view": "AX",
}
LETTERS = {"operator": "O", "reviewer": "R", "finance": "F", "auditor": "A", "admin": "X"}


def test_the_table_of_roles_is_what_it_was_agreed_to_be():
    actual = {
        permission: "".join(LETTERS[role] for role in ROLES if role in held)
        for permission, held in PERMISSIONS.items()
    }
    assert actual == TABLE


@pytest.mark.any_engine
@pytest.mark.parametrize("role", ROLES)
def test_a_role_holds_where_it_is_held_and_nowhere_else(cast, role):
    here, everywhere = person("here", (role, cast.support)), person("everywhere", (role, None))
    for permission, holders in TABLE.items():
        allowed = LETTERS[role] in holders
        in_project = allowed and permission not in ORGANISATION_WIDE
        assert may(here, permission, cast.support) is in_project, permission
        assert may(here, permission, cast.search) is False, permission
        assert may(here, permission, None) is False, permission
        assert may_anywhere(here, permission) is in_project, permission
        assert may(everywhere, permission, cast.support) is allowed, permission
        assert may(everywhere, permission, None) is allowed, permission
        assert may_anywhere(everywhere, permission) is allowed, permission


def test_roles_of_several_projects_do_not_mix(cast):
    both = person("both", ("finance", cast.support), ("operator", cast.search))
    assert may(both, "budget.manage", cast.support)
    assert not may(both, "budget.manage", cast.search)
    assert not may(both, "service_key.manage", cast.support)
    assert set(projects_for(both, "budget.view")) == {cast.support, cast.search}
    assert set(projects_for(both, "budget.manage")) == {cast.support}
    assert set(projects_for(both, ("budget.manage", "service_key.manage"))) == {cast.support, cast.search}


@pytest.mark.parametrize("who", [None, AnonymousUser(), SimpleNamespace(), "alice", 7])
def test_nobody_holds_nothing(who):
    assert powers_of(who) == POWERLESS
    assert not any(may_anywhere(who, permission) for permission in PERMISSIONS)


def test_an_account_that_is_closed_holds_nothing(cast):
    for user in (cast.alice, cast.root):
        user.is_active = False
        user.save()
        assert powers_of(user) == POWERLESS
        assert powers_of_actor(user_actor(user)) == POWERLESS


def test_a_superuser_holds_everything(cast):
    assert all(
        may(cast.root, permission, place) for permission in PERMISSIONS for place in (None, cast.search)
    )


@pytest.mark.any_engine
@pytest.mark.parametrize("scope", SCOPE_PERMISSIONS)
def test_a_scope_reaches_its_own_project_only(cast, scope):
    key = issue(cast.support, *{"inference", scope}).key
    for permission in PERMISSIONS:
        held = SCOPE_PERMISSIONS[scope] | SCOPE_PERMISSIONS["inference"]
        expected = permission in held and permission not in ORGANISATION_WIDE
        assert may(key, permission, cast.support) is expected
        everywhere = scope == "organisation" and expected
        assert may(key, permission, cast.search) is everywhere
        assert may(key, permission, None) is everywhere


def test_the_organisation_scope_makes_the_others_reach_everywhere(cast):
    key = issue(cast.support, "read", "configure", "organisation").key
    assert may(key, "provider.manage", None)
    assert may(key, "usage.view", cast.search)
    assert not may(key, "service_key.manage", cast.support)
    assert not may(key, "audit.view", cast.support)


def test_unknown_scopes_and_permissions(cast):
    key = ServiceKey(project=cast.support, scopes=["everything", "__class__", ""])
    assert not any(may_anywhere(key, permission) for permission in PERMISSIONS)
    with pytest.raises(KeyError, match="not a permission"):
        may(cast.root, "budget.mange", None)
    with pytest.raises(KeyError, match="not a permission"):
        may_anywhere(cast.bob, "")


def test_powers_are_read_once_a_request(cast, django_assert_num_queries):
    request = RequestFactory().get("/")
    request.user = cast.bob
    with django_assert_num_queries(1):
        for permission in PERMISSIONS:
            may(request, permission, cast.support)
            may_anywhere(request, permission)


def test_a_key_on_a_request_takes_the_place_of_the_session(cast):
    request = RequestFactory().get("/")
    request.user = cast.root
    request.service_key = issue(cast.support, "read").key
    assert not may(request, "budget.manage", cast.support)
    assert may(request, "budget.view", cast.support)


def test_actors(cast):
    key = issue(cast.support, "keys").key
    assert powers_of_actor(Actor("service_key", str(key.pk), "k")) == powers_of(key)
    assert powers_of_actor(SYSTEM).cover(powers_of(cast.root))
    assert powers_of_actor(NOBODY) == POWERLESS
    assert powers_of_actor(Actor("user", "999999", "gone")) == POWERLESS


def test_cover():
    one, other = Project(), Project()
    everywhere = powers_of_roles({None: ["admin"]})
    operator = powers_of_roles({one.pk: ["operator"]})
    admin = powers_of_roles({one.pk: ["admin"]})
    elsewhere = powers_of_roles({other.pk: ["reviewer"]})
    assert everywhere.cover(operator) and everywhere.cover(admin) and everywhere.cover(everywhere)
    assert admin.cover(operator) and not operator.cover(admin)
    assert not admin.cover(everywhere) and not admin.cover(elsewhere)
    assert operator.cover(POWERLESS)
    assert Powers(everywhere=frozenset({"budget.view"})).cover(
        Powers(by_project={one.pk: frozenset({"budget.view"})})
    )


def test_visible_rows_with_and_without_a_project(cast):
    issue(cast.support), issue(cast.search)
    keys = ServiceKey.objects.all()
    assert [key.project for key in visible(keys, cast.bob, "service_key.view")] == [cast.support]
    assert visible(keys, cast.carla, "service_key.view").count() == 0
    assert visible(keys, cast.alice, "service_key.view").count() == 2
    assert visible(Project.objects.all(), cast.bob, "project.view", project="pk").get() == cast.support
    assert visible(keys, cast.bob, "provider.view", project=None).count() == 2
    assert visible(keys, cast.rita, "provider.view", project=None).count() == 0
