"""A revision carried to another console: the very same bytes, or a sentence that says what does not fit. Never a secret."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops.core.errors import InvalidRequest, NotFound, UnprocessableEntity
from llmops.providers import services as providers
from llmops.providers.models import Credential, Provider
from llmops.serving import services
from llmops.serving.files import unpacked
from llmops.serving.models import BroughtRevision, Revision
from llmops.serving.selectors import exported, live_revision, load_snapshot, pending
from tests import configuring
from tests.cast import bearer, every_scope, no_event, one_event, signed_in
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db
SECRET = "sk-PLANTED-0123456789abcdef"


@pytest.fixture
def staged():
    """A file of what staging serves; here, other things are live by now."""
    sim, _, chat = configuring.everything()
    configuring.credential(sim, name="second", secret=SECRET, activate=True)
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 7})
    file = exported(services.publish(OPERATOR, reason="tried on staging"))
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 2})
    services.publish(OPERATOR, reason="as it was here")
    return file


def test_the_very_same_bytes_go_live(staged):
    digest = json.loads(staged)["digest"]
    with one_event("revision.published") as seen:
        made = services.import_revision(OPERATOR, data=staged, digest=digest, reason="promoted")
    assert (made.number, made.digest) == (3, digest)
    assert made.document == Revision.objects.get(number=1).document
    assert made.origin["number"] == 1
    assert made.origin["reason"] == "tried on staging"
    assert seen.event.after["origin"] == made.origin
    assert load_snapshot().routes["chat"].attempts == 7
    # What is configured here stays, and shows as unpublished.
    assert pending().changes == ["route chat: attempts 7 → 2"]
    assert exported(made).split(b'"document":')[1] == staged.split(b'"document":')[1]
    with pytest.raises(services.NothingToPublish):
        services.import_revision(OPERATOR, data=staged, reason="again")


def test_no_file_holds_a_secret(staged):
    assert SECRET.encode() not in staged
    for row in Credential.objects.all():
        assert row.fingerprint.encode() not in staged


@given(st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_changed_in_a_file_is_refused(staged, data):
    """Any one byte of the document, or of the digest it is held against."""
    start = staged.index(b'"document":') + len(b'"document":')
    place = data.draw(st.integers(start, len(staged) - 3))
    changed = bytearray(staged)
    changed[place] = data.draw(st.integers(32, 126).filter(lambda byte: byte != staged[place]))
    with pytest.raises(InvalidRequest) as refused:
        unpacked(bytes(changed))
    assert refused.value.param == "file"


def test_a_file_that_says_something_else_is_refused_with_a_sentence(staged):
    whole = json.loads(staged)
    for data, words in (
        (b"not a revision", "no revision"),
        (b"[]", "no revision"),
        (b"\xff\xfe", "no revision"),
        (json.dumps(whole, indent=2).encode(), "changed after it was exported"),
        (staged.replace(b'"llmops_revision":1', b'"llmops_revision":2'), "same version"),
    ):
        with pytest.raises(InvalidRequest, match=words), no_event():
            services.import_revision(OPERATOR, data=data, reason="x")
    with pytest.raises(InvalidRequest, match="another revision") as refused, no_event():
        services.import_revision(OPERATOR, data=staged, digest="0" * 64, reason="x")
    assert refused.value.param == "digest"
    assert not BroughtRevision.objects.exists()


def test_a_document_with_members_of_a_newer_version_is_not_served_by_halves(staged):
    from llmops.core.digests import sha256_hex

    whole = json.loads(staged)
    whole["document"]["routes"][0]["teleport"] = True
    text = json.dumps(whole["document"], separators=(",", ":"))
    head = staged.split(b'"document":')[0].replace(
        whole["digest"].encode(), sha256_hex(text.encode()).encode()
    )
    with pytest.raises(InvalidRequest, match=r"routes\[0\].teleport"):
        unpacked(head + b'"document":' + text.encode() + b"}")


def test_what_is_not_here_is_named(staged):
    sim = Provider.objects.get(slug="sim")
    for row in Credential.objects.filter(provider=sim):
        providers.revoke_credential(OPERATOR, credential=row)
    with pytest.raises(UnprocessableEntity, match="no active key here"), no_event():
        services.import_revision(OPERATOR, data=staged, reason="x")
    Provider.objects.filter(pk=sim.pk).update(base_url="http://127.0.0.1:7/v1")
    with pytest.raises(UnprocessableEntity, match="would be sent elsewhere"), no_event():
        services.import_revision(OPERATOR, data=staged, reason="x")
    Provider.objects.filter(pk=sim.pk).update(slug="other")
    with pytest.raises(UnprocessableEntity, match="no provider sim here"), no_event():
        services.import_revision(OPERATOR, data=staged, reason="x")
    assert live_revision().number == 2
    assert not BroughtRevision.objects.exists()


def test_what_was_brought_is_looked_at_and_then_published_on_a_page(cast, staged):
    person = signed_in(cast.alice)
    upload = SimpleUploadedFile("revision.json", staged, content_type="application/json")
    with one_event("revision.brought"):
        answer = person.post("/admin/serving/revision/bring/", {"file": upload, "digest": ""})
    row = BroughtRevision.objects.get()
    assert answer.url == f"/admin/serving/broughtrevision/{row.pk}/publish/"
    assert live_revision().number == 2
    page = person.get(answer.url).content.decode()
    assert "Attempts 2 → 7" in page
    hidden = {
        "expected_revision": "2",
        "as_of": "99999",
        "expected_digest": row.digest,
    }
    with one_event("revision.published"):
        assert person.post(answer.url, {"reason": "promoted", **hidden}).status_code == 302
    assert live_revision().digest == row.digest
    assert (
        "revision 1 of elsewhere" in person.get("/admin/serving/revision/3/change/").content.decode().lower()
    )
    bad = SimpleUploadedFile(
        "revision.json", staged.replace(b"chat", b"chit"), content_type="application/json"
    )
    with no_event():
        refused = person.post("/admin/serving/revision/bring/", {"file": bad, "digest": ""})
    assert "changed after it was exported" in refused.content.decode()


def test_the_api_exports_and_imports(cast, staged):
    client = bearer(every_scope(cast.support).secret)
    file = client.get("/api/v1/revisions/1/export/")
    assert file.content == staged
    with one_event("revision.published"):
        made = client.post(
            "/api/v1/revisions/import/",
            {"file": file.content.decode(), "reason": "promoted", "expected_revision": 2},
            content_type="application/json",
        )
    assert (made.status_code, made.json()["digest"]) == (201, json.loads(staged)["digest"])
    with no_event():
        refused = client.post(
            "/api/v1/revisions/import/",
            {"file": file.content.decode() + " ", "digest": "1" * 64, "reason": "x"},
            content_type="application/json",
        )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "digest")


def test_the_command_exports_imports_and_goes_back(staged, tmp_path):
    file = tmp_path / "revision.json"
    call_command("revision", "export", "1", "-o", str(file), stdout=StringIO())
    assert file.read_bytes() == staged
    out = StringIO()
    with one_event("revision.published"):
        call_command("revision", "import", str(file), "--reason", "promoted", "--expected", "2", stdout=out)
    assert "route chat: attempts 2 → 7" in out.getvalue()
    with one_event("revision.restored"):
        call_command("revision", "restore", "2", "--reason", "worse", stdout=StringIO())
    assert live_revision().digest == Revision.objects.get(number=2).digest
    out = StringIO()
    call_command("revision", "list", stdout=out)
    assert "live" in out.getvalue().splitlines()[0]
    with pytest.raises(CommandError, match="Revision 4 is live by now"):
        call_command("revision", "import", str(file), "--reason", "x", "--expected", "1", stdout=StringIO())


def test_bytes_that_were_changed_in_the_database_are_not_served(staged):
    row = services.bring(OPERATOR, data=staged)
    assert services.bring(OPERATOR, data=staged) == row
    BroughtRevision.objects.update(document=row.document.replace("chat", "chit"))
    with pytest.raises(UnprocessableEntity, match="not what was brought"), no_event():
        services.publish_brought(OPERATOR, brought_id=row.pk, reason="x")
    with pytest.raises(NotFound):
        services.publish_brought(OPERATOR, brought_id=OPERATOR_ID, reason="x")


OPERATOR_ID = "00000000-0000-0000-0000-000000000000"
