"""What every admin page inherits, and what no subclass can get wrong by accident."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.test import RequestFactory
from unfold.admin import TabularInline

from llmops.access import services
from llmops.access.models import Membership, Project
from llmops.base.admin import ReadOnlyAdmin, ServiceAdmin
from llmops.core.errors import Conflict, InvalidRequest, UnprocessableEntity
from tests.cast import AS_SHOWN, no_event, signed_in

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("raised", "field", "said"),
    [
        (InvalidRequest("slug is odd", param="slug"), "slug", "slug is odd"),
        (Conflict("taken", param="no_such_field"), "__all__", "taken"),
        (
            UnprocessableEntity("no", data={"problems": {"name": "bad name", "owner": "bad owner"}}),
            "name",
            "bad name",
        ),
        (UnprocessableEntity("as a whole", data={"problems": [{"code": "x"}]}), "__all__", "as a whole"),
        (ValidationError({"owner": ["not a mailbox"]}), "owner", "not a mailbox"),
        (ValidationError("in general"), "__all__", "in general"),
        (IntegrityError("UNIQUE constraint failed: access_project.slug"), "__all__", "The database refused"),
        (Conflict("key sk-proj-" + "a1B2" * 10), "__all__", "[redacted]"),
    ],
)
def test_what_a_service_refuses_is_said_on_the_form(cast, monkeypatch, raised, field, said):
    real = services.create_project

    def change_and_refuse(*args, **kwargs):
        real(*args, **kwargs)
        raise raised

    monkeypatch.setattr(services, "create_project", change_and_refuse)
    client = signed_in(cast.alice)
    with no_event():
        answer = client.post(
            "/admin/access/project/add/",
            {"slug": "new", "name": "typed", "owner": "", "cost_center": "", **AS_SHOWN},
        )
    assert answer.status_code == 200
    form = answer.context["adminform"].form
    assert said in form.errors[field][0]
    assert "UNIQUE" not in answer.content.decode()
    assert 'value="typed"' in answer.content.decode()
    # What the service had written before it refused is taken back.
    assert not Project.objects.filter(slug="new").exists()


def test_a_fault_is_a_500_and_leaves_nothing(cast, monkeypatch):
    real = services.create_project

    def change_and_break(*args, **kwargs):
        real(*args, **kwargs)
        raise ZeroDivisionError

    monkeypatch.setattr(services, "create_project", change_and_break)
    client = signed_in(cast.alice, raise_request_exception=False)
    with no_event():
        answer = client.post("/admin/access/project/add/", {"slug": "new", "name": "n", **AS_SHOWN})
    assert answer.status_code == 500
    assert not Project.objects.filter(slug="new").exists()


def test_a_form_that_is_not_valid_calls_no_service(cast, monkeypatch):
    monkeypatch.setattr(services, "create_project", lambda *args, **kwargs: pytest.fail("called"))
    answer = signed_in(cast.alice).post("/admin/access/project/add/", {"slug": "", "name": "", **AS_SHOWN})
    assert set(answer.context["adminform"].form.errors) == {"slug", "name"}


def test_no_page_edits_in_its_list():
    with pytest.raises(TypeError, match="list_editable"):
        type("Bad", (ServiceAdmin,), {"list_editable": ("name",), "__module__": __name__})


def test_pages_are_spared_the_scripts_that_none_uses(cast):
    """Of those that a page still loads, the largest is jQuery; Chart.js has its place taken."""
    with pytest.raises(TypeError, match="prepopulated_fields"):
        type("Bad", (ServiceAdmin,), {"prepopulated_fields": {"slug": ("name",)}, "__module__": __name__})
    page = signed_in(cast.alice).get("/admin/access/project/add/").content.decode()
    loaded = re.findall(r'<script[^>]* src="/static/([^"]+)"', page)
    assert "unfold/js/chart/chart.js" in loaded and "admin/js/core.js" in loaded
    sizes = {name: Path(finders.find(name)).stat().st_size for name in loaded}
    assert {name for name, size in sizes.items() if size > 60_000} == {"admin/js/vendor/jquery/jquery.min.js"}
    # A chart would be a canvas that Chart.js draws on.
    ours = (
        *settings.BASE_DIR.glob("templates/**/*.html"),
        *settings.BASE_DIR.glob("llmops/*/templates/**/*.html"),
    )
    assert not [path for path in ours if "<canvas" in path.read_text()]


def test_no_page_edits_in_an_inline(cast):
    inline = type("Inline", (TabularInline,), {"model": Membership, "__module__": __name__})
    page = type(
        "Bad",
        (ServiceAdmin,),
        {
            "inlines": (inline,),
            "view_permission": "project.view",
            "project_path": "pk",
            "__module__": __name__,
        },
    )(Project, admin.site)
    request = RequestFactory().get("/")
    request.user = cast.root
    with pytest.raises(TypeError, match="ReadOnlyInline"):
        page.get_inline_instances(request)


def test_an_action_that_is_not_confirmed_is_a_mistake_said_aloud(cast):
    page = type(
        "Bad",
        (ServiceAdmin,),
        {"actions_detail": ("go",), "go": lambda self, request, object_id: None, "view_permission": "project.view",
         "project_path": "pk", "__module__": __name__},
    )(Project, admin.site)  # fmt: skip
    request = RequestFactory().get("/")
    request.user = cast.root
    with pytest.raises(TypeError, match="admin_action"):
        page.get_actions_detail(request, cast.support.pk)


def test_what_is_not_given_is_not_offered(cast):
    page = type(
        "Plain",
        (ReadOnlyAdmin,),
        {
            "view_permission": "project.view",
            "manage_permission": "project.manage",
            "project_path": "pk",
            "__module__": __name__,
        },
    )(Project, admin.site)
    request = RequestFactory().get("/")
    request.user = cast.root
    assert page.has_view_permission(request)
    assert not page.has_add_permission(request)
    assert not page.has_change_permission(request)
    assert not page.has_delete_permission(request)
    assert "slug" in page.get_readonly_fields(request)
    with pytest.raises(TypeError, match="one by one"):
        page.delete_queryset(request, Project.objects.all())


def test_the_project_field_offers_what_one_manages(cast):
    for client, offered, hidden in (
        (signed_in(cast.bob), ["Support assistant"], ["Product search", "The whole organisation"]),
        (signed_in(cast.root), ["Support assistant", "Product search"], []),
    ):
        page = client.get("/admin/access/servicekey/add/").content.decode()
        assert all(name in page for name in offered)
        assert not [name for name in hidden if name in page]
    page = signed_in(cast.alice).get("/admin/access/membership/add/").content.decode()
    assert "The whole organisation" in page
