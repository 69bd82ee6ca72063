"""Nobody gives away what they do not hold, nobody raises themselves, and the last administrator stays."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from llmops.access import services
from llmops.access.models import Membership
from llmops.access.rules import ROLES, SCOPES
from llmops.audit.models import Event
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from tests.cast import COMMAND, PASSWORD, acting, in_threads, issue, make_cast, no_event, one_event, person

User = get_user_model()


@pytest.mark.any_engine
@pytest.mark.django_db
@pytest.mark.parametrize("name", ["bob", "carla", "dan", "rita", "charlie"])
def test_only_administrators_manage_members(cast, name):
    actor = acting(getattr(cast, name))
    own = Membership.objects.get(user=getattr(cast, name))
    other = Membership.objects.get(user=cast.alice)
    for attempt in (
        lambda: services.add_member(actor, user=getattr(cast, name), project=cast.support, role="admin"),
        lambda: services.add_member(actor, user=getattr(cast, name), project=None, role="reviewer"),
        lambda: services.change_role(actor, membership=own, role="admin"),
        lambda: services.remove_member(actor, membership=other),
        lambda: services.remove_member(actor, membership=own),
        lambda: services.create_user(actor, username="new"),
        lambda: services.update_user(actor, user=getattr(cast, name), is_superuser=True),
        lambda: services.update_user(actor, user=cast.alice, email="mine@example.com"),
        lambda: services.set_password(actor, user=cast.alice, password=PASSWORD),
        lambda: services.deactivate_user(actor, user=cast.alice),
        lambda: services.unlock_user(actor, user=getattr(cast, name)),
    ):
        with no_event(), pytest.raises(PermissionDenied):
            attempt()


@pytest.mark.django_db
def test_an_administrator_of_one_project_gives_every_role_there_and_none_elsewhere(cast):
    pam = acting(person("pam", ("admin", cast.support)))
    for role in ROLES:
        with one_event("member.added"):
            services.add_member(pam, user=cast.charlie, project=cast.support, role=role)
        for place in (cast.search, None):
            with no_event(), pytest.raises(PermissionDenied):
                services.add_member(pam, user=cast.charlie, project=place, role=role)
    with pytest.raises(PermissionDenied):
        services.remove_member(pam, membership=Membership.objects.get(user=cast.alice))


@pytest.mark.django_db
def test_a_key_that_manages_members_gives_no_role_above_itself(cast):
    key = issue(cast.support, "members").key
    actor = Actor("service_key", str(key.pk), key.name)
    for role in ROLES:
        with no_event(), pytest.raises(PermissionDenied):
            services.add_member(actor, user=cast.charlie, project=cast.support, role=role)
    full = issue(cast.support, *(scope for scope in SCOPES if scope != "organisation")).key
    actor = Actor("service_key", str(full.pk), full.name)
    services.add_member(actor, user=cast.charlie, project=cast.support, role="reviewer")
    with pytest.raises(PermissionDenied):
        services.add_member(actor, user=cast.charlie, project=None, role="reviewer")


@pytest.mark.django_db
def test_a_membership_is_held_once(cast):
    for attempt in (
        lambda: services.add_member(COMMAND, user=cast.bob, project=cast.support, role="operator"),
        lambda: services.add_member(COMMAND, user=cast.alice, project=None, role="admin"),
    ):
        with no_event(), pytest.raises(Conflict) as refusal:
            attempt()
        assert refusal.value.param == "role"


@pytest.mark.django_db
def test_roles_and_places_that_do_not_exist(cast):
    with pytest.raises(InvalidRequest) as refusal:
        services.add_member(COMMAND, user=cast.bob, project=cast.support, role="king")
    assert refusal.value.param == "role"
    services.archive_project(COMMAND, project=cast.search)
    cast.search.refresh_from_db()
    with pytest.raises(Conflict, match="archived"):
        services.add_member(COMMAND, user=cast.bob, project=cast.search, role="finance")
    services.deactivate_user(COMMAND, user=cast.rita)
    cast.rita.refresh_from_db()
    with pytest.raises(Conflict, match="deactivated"):
        services.add_member(COMMAND, user=cast.rita, project=cast.support, role="finance")
    gone = Membership.objects.get(user=cast.charlie)
    services.remove_member(COMMAND, membership=gone)
    with no_event(), pytest.raises(Conflict, match="no longer exists"):
        services.remove_member(COMMAND, membership=gone)


@pytest.mark.django_db
def test_an_event_outlives_the_membership_and_names_it(cast):
    with one_event("member.removed") as seen:
        services.remove_member(
            COMMAND, membership=Membership.objects.get(user=cast.bob), reason="left the team"
        )
    assert seen.event.before == {"user": "bob", "project": "support", "role": "operator"}
    assert "bob is operator of Support assistant" in seen.event.object_name


@pytest.mark.django_db
def test_the_last_superuser_stays(cast):
    for attempt in (
        lambda: services.deactivate_user(COMMAND, user=cast.root),
        lambda: services.update_user(COMMAND, user=cast.root, is_superuser=False),
    ):
        with no_event(), pytest.raises(Conflict, match="last active superuser"):
            attempt()
    cast.root.refresh_from_db()
    assert cast.root.is_active and cast.root.is_superuser
    services.create_user(COMMAND, username="second", is_superuser=True)
    services.deactivate_user(COMMAND, user=cast.root)


@pytest.mark.django_db
def test_the_last_administrator_stays_where_there_is_no_superuser(cast):
    cast.root.delete()
    membership = Membership.objects.get(user=cast.alice)
    for attempt in (
        lambda: services.remove_member(acting(cast.alice), membership=membership),
        lambda: services.change_role(acting(cast.alice), membership=membership, role="auditor"),
        lambda: services.deactivate_user(acting(cast.alice), user=cast.alice),
    ):
        with no_event(), pytest.raises(Conflict, match="last administrator"):
            attempt()


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_remove_each_other_at_once_leave_one():
    cast = make_cast()
    cast.root.delete()
    second = person("anna", ("admin", None))
    mine, theirs = (Membership.objects.get(user=user) for user in (cast.alice, second))
    results = in_threads(
        lambda: services.remove_member(acting(cast.alice), membership=theirs),
        lambda: services.remove_member(acting(second), membership=mine),
    )
    assert sorted(type(result).__name__ for result in results) in (
        ["Conflict", "NoneType"],
        ["NoneType", "PermissionDenied"],
    )
    assert Membership.objects.filter(role="admin", project=None).count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_superusers_who_close_each_other_at_once_leave_one():
    cast = make_cast()
    second = person("sam", is_superuser=True)
    in_threads(
        lambda: services.deactivate_user(acting(cast.root), user=second),
        lambda: services.deactivate_user(acting(second), user=cast.root),
    )
    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1
    assert Event.objects.filter(action="user.deactivated").count() == 1


@pytest.mark.django_db
def test_an_administrator_is_not_a_superuser(cast):
    alice = acting(cast.alice)
    for attempt in (
        lambda: services.create_user(alice, username="new", is_superuser=True),
        lambda: services.update_user(alice, user=cast.alice, is_superuser=True),
        lambda: services.update_user(alice, user=cast.root, email="mine@example.com"),
        lambda: services.set_password(alice, user=cast.root, password=PASSWORD),
        lambda: services.deactivate_user(alice, user=cast.root),
    ):
        with no_event(), pytest.raises(PermissionDenied):
            attempt()


@pytest.mark.django_db
def test_no_key_touches_an_account_that_may_more(cast):
    key = issue(cast.support, "members", "organisation").key
    actor = Actor("service_key", str(key.pk), key.name)
    closed = person("closed", ("admin", None), is_active=False)
    for user in (cast.alice, cast.bob, closed):
        with no_event(), pytest.raises(PermissionDenied, match="you may not"):
            services.set_password(actor, user=user, password=PASSWORD)
    with pytest.raises(PermissionDenied):
        services.activate_user(actor, user=closed)
    services.create_user(actor, username="new")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"username": "ALICE"}, "username"),
        ({"username": ""}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "x" * 151}, "username"),
        ({"username": "new", "email": "nowhere"}, "email"),
        ({"username": "new", "password": "Qx7!"}, "password"),
        ({"username": "new", "password": "password1234"}, "password"),
        ({"username": "newcomer-long-name", "password": "newcomer-long-name"}, "password"),
    ],
)
def test_bad_accounts_name_the_field(cast, fields, named):
    with no_event(), pytest.raises((InvalidRequest, Conflict, ValidationError)) as refusal:
        services.create_user(COMMAND, **fields)
    param = (
        next(iter(refusal.value.message_dict))
        if isinstance(refusal.value, ValidationError)
        else refusal.value.param
    )
    assert param == named
    assert fields.get("password", "nothing") not in str(refusal.value)


@pytest.mark.django_db
def test_a_password_is_in_no_event(cast):
    user = services.create_user(COMMAND, username="eve", password=PASSWORD)
    services.set_password(COMMAND, user=user, password=PASSWORD + "2")
    services.change_own_password(acting(user), user=user, password=PASSWORD + "3")
    user.refresh_from_db()
    assert user.check_password(PASSWORD + "3")
    for event in Event.objects.all():
        assert PASSWORD not in str(event.before) + str(event.after) + event.reason
        assert user.password not in str(event.before) + str(event.after)
    with pytest.raises(PermissionDenied):
        services.change_own_password(acting(user), user=cast.alice, password=PASSWORD)


@pytest.mark.django_db
def test_the_commands_of_django_go_through_services(cast, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    with one_event("user.created") as seen:
        call_command("createsuperuser", "--noinput", "--username", "boss")
    assert seen.event.actor_kind == "command"
    assert User.objects.get(username="boss").check_password(PASSWORD)
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "another-long-password")
    with one_event("user.password_set"):
        call_command("changepassword", "boss", "--noinput")
    assert User.objects.get(username="boss").check_password("another-long-password")
    with no_event():
        with pytest.raises(CommandError, match="already an account"):
            call_command("createsuperuser", "--noinput", "--username", "boss")
        with pytest.raises(CommandError, match="no account"):
            call_command("changepassword", "nobody", "--noinput")
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "short")
        with pytest.raises(CommandError, match="too short"):
            call_command("changepassword", "boss", "--noinput")
        for name in ("loaddata", "flush"):
            with pytest.raises(CommandError, match="without a trace"):
                call_command(name)
