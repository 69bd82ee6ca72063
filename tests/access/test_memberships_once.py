"""A person has a role once in a place: the database itself refuses a second, whoever writes it."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from llmops.access import services
from llmops.access.models import Membership
from llmops.core.errors import ConsoleError
from tests.cast import COMMAND, in_threads, make_cast
from tests.installation import Installation


@pytest.mark.django_db
@pytest.mark.parametrize("place", ["support", None])
def test_a_second_row_is_refused_by_the_database(cast, place):
    project = getattr(cast, place) if place else None
    Membership.objects.filter(user=cast.charlie).delete()
    Membership.objects.create(user=cast.charlie, project=project, role="auditor")
    for write in (
        lambda: Membership.objects.create(user=cast.charlie, project=project, role="auditor"),
        lambda: Membership.objects.bulk_create(
            [Membership(user=cast.charlie, project=project, role="auditor")]
        ),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            write()
    with pytest.raises(ValidationError):
        Membership(user=cast.charlie, project=project, role="auditor").full_clean()
    # Another role, another place and another person are no second.
    Membership.objects.create(user=cast.charlie, project=project, role="finance")
    Membership.objects.create(
        user=cast.charlie, project=cast.search if place else cast.support, role="auditor"
    )
    Membership.objects.create(user=cast.bob, project=project, role="auditor")
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.filter(user=cast.charlie, project=project).update(role="auditor")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("place", ["support", None])
def test_of_many_at_once_one_is_added(place):
    cast = make_cast()
    project = getattr(cast, place) if place else None
    Membership.objects.filter(user=cast.charlie).delete()

    def add():
        try:
            services.add_member(COMMAND, user=cast.charlie, project=project, role="reviewer")
        except (ConsoleError, ValidationError, IntegrityError):
            return False
        return True

    assert sum(in_threads(*[add] * 6)) == 1
    assert Membership.objects.filter(user=cast.charlie).count() == 1


@pytest.mark.django_db
def test_no_constraint_is_left_out_on_this_database():
    assert [
        message.id for message in run_checks(databases=["default"]) if message.id.startswith("models.")
    ] == []


#: On PostgreSQL with all that depends on this app, which is taken back once and comes again at the end. On SQLite, which would make
#: each of those tables anew, twice, the migration by itself.
THERE_AND_BACK = """
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from llmops.access.models import Membership

def migrate(*to):
    call_command("migrate", *to, verbosity=0, skip_checks=False)

def rows():
    with connection.cursor() as cursor:
        cursor.execute("SELECT role, COUNT(*) FROM access_membership GROUP BY role ORDER BY role")
        print(cursor.fetchall())

if connection.vendor == "sqlite":
    executor, name = MigrationExecutor(connection), ("access", "0002_memberships_once")
    itself = executor.loader.get_migration(*name)
    state = executor.loader.project_state(name, at_end=False)
    back = lambda: executor.unapply_migration(state.clone(), itself)
    forth = end = lambda: executor.apply_migration(state.clone(), itself)
else:
    back = lambda: migrate("access", "0001_tables")
    forth, end = lambda: migrate("access"), migrate

back()
user = get_user_model().objects.create_user("twice")
for _ in range(2 if connection.vendor == "sqlite" else 1):
    Membership.objects.create(user=user, project=None, role="auditor")
Membership.objects.create(user=user, project=None, role="finance")
forth()
rows()
back()
end()
rows()
"""


def test_the_migration_goes_both_ways_and_ends_duplicates(installation: Installation) -> None:
    done = installation.manage("shell", "-v0", "-c", THERE_AND_BACK)
    assert "W047" not in done.stderr
    assert done.stdout.splitlines() == ["[('auditor', 1), ('finance', 1)]"] * 2
