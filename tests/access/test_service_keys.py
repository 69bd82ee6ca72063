"""Service keys: what is stored, what is refused, and that no key is a way up."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils import timezone

from llmops.access import secrets, services
from llmops.access.authentication import find_key
from llmops.access.models import ServiceKey
from llmops.audit.models import Event
from llmops.base import live
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, PermissionDenied
from tests.cast import COMMAND, acting, in_threads, issue, no_event, one_event, person

DECLARED = "declared-Secret_0123456789"


def as_key(key):
    return Actor("service_key", str(key.pk), key.name)


def every_text_in_the_database():
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            for row in cursor.fetchall():
                yield from (str(value) for value in row)


def test_the_form_of_a_secret():
    made = {secrets.new_secret() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"llmops_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", secret) for secret in made)
    assert all(secrets.prefix_of(secret) == secret[:15] for secret in made)
    assert secrets.prefix_of(DECLARED) == "decl"


@pytest.mark.django_db
def test_the_secret_is_nowhere_in_the_database(cast):
    issued = [issue(cast.support), issue(cast.support, secret=DECLARED, name="declared")]
    issued.append(services.rotate_service_key(COMMAND, key=issued[0].key))
    texts = list(every_text_in_the_database())
    for one in issued:
        # The part after the prefix, so that the prefix itself may be there.
        assert not any(one.secret[16:] in text for text in texts)
    assert issued[0].secret not in repr(issued[0])


@pytest.mark.django_db
def test_a_declared_secret_works(cast):
    assert find_key(DECLARED) is None
    issued = issue(cast.support, secret=DECLARED)
    assert issued.secret == DECLARED
    assert find_key(DECLARED) == issued.key


@pytest.mark.django_db
@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "x" * 23,
        "a" * 40,
        "ab" * 20,
        "with space " * 3,
        "tab\t" * 8,
        "ünïcödé" * 6,
        "nul\0" * 8,
        "A1b2C3d4" * 26,
    ],
)
def test_a_weak_declared_secret_is_refused_without_being_repeated(cast, secret):
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        issue(cast.support, secret=secret)
    assert refusal.value.param == "secret"
    assert not secret or secret not in refusal.value.message
    assert not ServiceKey.objects.exists()


@pytest.mark.django_db
def test_a_secret_serves_one_key_only(cast):
    first = issue(cast.support, secret=DECLARED)
    for attempt in (
        lambda: issue(cast.search, secret=DECLARED),
        lambda: services.rotate_service_key(COMMAND, key=first.key, secret=DECLARED),
    ):
        with no_event(), pytest.raises(Conflict) as refusal:
            attempt()
        assert refusal.value.param == "secret"
    services.rotate_service_key(COMMAND, key=first.key)
    # It is the predecessor now, and still taken.
    with pytest.raises(Conflict):
        issue(cast.search, secret=DECLARED)


@pytest.mark.django_db
def test_both_secrets_work_while_grace_lasts(cast):
    first = issue(cast.support)
    second = services.rotate_service_key(COMMAND, key=first.key, grace=timedelta(hours=1))
    now = timezone.now()
    assert find_key(first.secret) == find_key(second.secret) == first.key
    assert find_key(first.secret, at=now + timedelta(hours=1, seconds=1)) is None
    assert find_key(second.secret, at=now + timedelta(days=900)) == first.key
    third = services.rotate_service_key(COMMAND, key=first.key, grace=timedelta(hours=1))
    assert find_key(first.secret) is None
    assert find_key(second.secret) == find_key(third.secret) == first.key
    fourth = services.rotate_service_key(COMMAND, key=first.key, grace=timedelta(0))
    assert find_key(third.secret) is None
    assert find_key(fourth.secret) == first.key


@pytest.mark.django_db
@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=31)])
def test_grace_has_bounds(cast, grace):
    issued = issue(cast.support)
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        services.rotate_service_key(COMMAND, key=issued.key, grace=grace)
    assert refusal.value.param == "grace"
    assert find_key(issued.secret)


@pytest.mark.django_db
def test_a_revoked_key_is_dead_with_its_predecessor(cast):
    first = issue(cast.support)
    second = services.rotate_service_key(COMMAND, key=first.key)
    with one_event("service_key.revoked"):
        services.revoke_service_key(COMMAND, key=first.key, reason="lost")
    assert find_key(first.secret) is find_key(second.secret) is None
    for change in (
        lambda: services.revoke_service_key(COMMAND, key=first.key),
        lambda: services.rotate_service_key(COMMAND, key=first.key),
        lambda: services.update_service_key(COMMAND, key=first.key, rpm=1),
    ):
        with no_event(), pytest.raises(Conflict, match="was revoked"):
            change()


@pytest.mark.django_db
def test_an_expired_key_is_dead(cast):
    issued = issue(cast.support, expires_at=timezone.now() + timedelta(hours=1))
    assert find_key(issued.secret)
    assert find_key(issued.secret, at=timezone.now() + timedelta(hours=1)) is None


@pytest.mark.django_db
@pytest.mark.parametrize("expires_at", [datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1)])  # noqa: DTZ001
def test_an_expiry_in_the_past_or_without_a_zone_is_refused(cast, expires_at):
    with pytest.raises(InvalidRequest) as refusal:
        issue(cast.support, expires_at=expires_at)
    assert refusal.value.param == "expires_at"


@pytest.mark.django_db
def test_the_keys_of_an_archived_project_stop_and_come_back(cast):
    issued = issue(cast.support)
    services.archive_project(COMMAND, project=cast.support)
    assert find_key(issued.secret) is None
    with pytest.raises(Conflict, match="archived"):
        issue(ServiceKey.objects.get().project)
    services.restore_project(COMMAND, project=cast.support)
    assert find_key(issued.secret) == issued.key


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", []),
        ("scopes", ["organisation"]),
        ("scopes", ["inference", "everything"]),
        ("allowed_routes", [""]),
        ("allowed_routes", [7]),
        ("allowed_routes", ["x" * 201]),
        ("allowed_routes", ["a\0b"]),
        ("allowed_models", [str(number) for number in range(201)]),
        ("rpm", 0),
        ("rpm", -1),
        ("tpm", 10**12),
        ("concurrency", "many"),
        ("name", ""),
        ("name", "x" * 81),
    ],
)
def test_bad_values_name_their_field_and_change_nothing(cast, field, value):
    issued = issue(cast.support)
    for attempt in (
        lambda: services.update_service_key(COMMAND, key=issued.key, **{field: value}),
        lambda: services.create_service_key(COMMAND, **{"project": cast.support, "name": "n", field: value}),
    ):
        with no_event(), pytest.raises((InvalidRequest, ValidationError)) as refusal:
            attempt()
        named = (
            refusal.value.param
            if isinstance(refusal.value, ConsoleError)
            else next(iter(refusal.value.message_dict))
        )
        assert named == field
    assert ServiceKey.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "field", ["secret_hash", "previous_hash", "prefix", "revoked_at", "project", "id", "made_up"]
)
def test_what_no_service_changes_is_refused(cast, field):
    issued = issue(cast.support)
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        services.update_service_key(COMMAND, key=issued.key, **{field: "x"})
    assert refusal.value.param == field


@pytest.mark.django_db
def test_every_change_is_felt_by_data_planes(cast):
    key = issue(cast.support).key
    for change in (
        lambda: issue(cast.support),
        lambda: services.update_service_key(COMMAND, key=key, rpm=5),
        lambda: services.rotate_service_key(COMMAND, key=key),
        lambda: services.revoke_service_key(COMMAND, key=key),
        lambda: services.archive_project(COMMAND, project=cast.support),
        lambda: services.restore_project(COMMAND, project=cast.support),
    ):
        before = live.versions()[live.LIVE_STATE]
        change()
        assert live.versions()[live.LIVE_STATE] == before + 1


@pytest.mark.django_db
def test_no_key_is_a_way_up(cast):
    """Whoever learns a secret could act as the key, so they must hold what it may do."""
    bob, project = acting(cast.bob), cast.support
    mighty = issue(project, "inference", "members", "organisation").key
    for attempt in (
        lambda: issue(project, "members", actor=bob),
        lambda: issue(project, "read", "audit", actor=bob),
        lambda: issue(project, "inference", "organisation", actor=bob),
        lambda: issue(project, "metrics", actor=bob),
        lambda: issue(cast.search, actor=bob),
        lambda: services.rotate_service_key(bob, key=mighty),
        lambda: services.update_service_key(bob, key=issue(project).key, scopes=["members"]),
    ):
        with pytest.raises(PermissionDenied) as refusal:
            attempt()
        assert refusal.value.param in ("scopes", "project")
    for attempt in (
        lambda: services.revoke_service_key(acting(cast.charlie), key=mighty),
        lambda: services.update_service_key(acting(cast.charlie), key=mighty, rpm=1),
        lambda: services.update_service_key(acting(cast.carla), key=mighty, rpm=1),
    ):
        with no_event(), pytest.raises(PermissionDenied):
            attempt()
    # What gives nobody anything is allowed.
    services.update_service_key(bob, key=mighty, rpm=1)
    services.update_service_key(bob, key=mighty, scopes=["inference"])
    services.revoke_service_key(bob, key=mighty)


@pytest.mark.django_db
def test_a_key_gives_no_more_than_it_holds(cast):
    keys_only = issue(cast.support, "keys").key
    services.create_service_key(
        as_key(keys_only), project=cast.support, name="child", scopes=["inference", "keys"]
    )
    for scopes in (["read"], ["budgets"], ["keys", "organisation"], ["members"]):
        with pytest.raises(PermissionDenied):
            services.create_service_key(as_key(keys_only), project=cast.support, name="more", scopes=scopes)
    services.revoke_service_key(COMMAND, key=keys_only)
    # Its actor's powers are read anew each time.
    with pytest.raises(PermissionDenied):
        services.create_service_key(as_key(keys_only), project=cast.support, name="late")


@pytest.mark.django_db
def test_an_organisation_wide_operator_gives_what_operators_hold(cast):
    olga = acting(person("olga", ("operator", None)))
    issue(cast.support, "read", "keys", "organisation", actor=olga)
    for scope in ("members", "audit", "budgets", "configure"):
        with pytest.raises(PermissionDenied):
            issue(cast.support, scope, actor=olga)


@pytest.mark.django_db(transaction=True)
def test_a_failure_after_the_change_undoes_all_of_it(cast):
    before, versions = Event.objects.count(), live.versions()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        issue(cast.support)
        raise ZeroDivisionError
    assert not ServiceKey.objects.exists()
    assert (Event.objects.count(), live.versions()) == (before, versions)


@pytest.mark.django_db(transaction=True)
def test_of_many_rotations_at_once_each_gives_a_secret_and_two_work(cast):
    first = issue(cast.support)
    rotated = in_threads(*[lambda: services.rotate_service_key(COMMAND, key=first.key)] * 5)
    assert all(isinstance(one, services.IssuedKey) for one in rotated), rotated
    assert sum(find_key(one.secret) is not None for one in rotated) == 2
    assert Event.objects.filter(action="service_key.rotated").count() == 5


@pytest.mark.django_db(transaction=True)
def test_of_two_keys_of_one_name_at_once_one_is_made(cast):
    made = in_threads(*[lambda: issue(cast.support, name="ci")] * 4)
    assert sum(isinstance(one, services.IssuedKey) for one in made) == 1
    assert ServiceKey.objects.count() == Event.objects.filter(action="service_key.created").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_rotation_and_a_revocation_at_once_leave_a_dead_key(cast):
    first = issue(cast.support)
    rotated, revoked = in_threads(
        lambda: services.rotate_service_key(COMMAND, key=first.key),
        lambda: services.revoke_service_key(COMMAND, key=first.key),
    )
    assert isinstance(revoked, ServiceKey)
    assert find_key(first.secret) is None
    if isinstance(rotated, services.IssuedKey):
        assert find_key(rotated.secret) is None
