"""A revision carried to another console: the very same bytes, or a sentence that says what does not fit. Never a secret."""

from __future__ import annotations

import json
from io import StringIO

import msgspec
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops.audit.models import Event
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnprocessableEntity
from llmops.providers import services as providers
from llmops.providers.models import Credential, Provider
from llmops.serving import services
from llmops.serving.files import unpacked
from llmops.serving.models import BroughtRevision, Revision
from llmops.serving.selectors import exported, live_revision, load_snapshot, pending
from tests import configuring
from tests.cast import bearer, every_scope, in_threads, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.kept import kept

pytestmark = pytest.mark.django_db
SECRET = "sk-PLANTED-0123456789abcdef"


@kept
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


@pytest.mark.any_engine
def test_no_file_holds_a_secret(staged):
    assert SECRET.encode() not in staged
    for row in Credential.objects.all():
        assert row.fingerprint.encode() not in staged


@pytest.mark.any_engine
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


@pytest.mark.any_engine
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


@pytest.mark.any_engine
def test_a_document_with_members_of_a_newer_version_is_not_served_by_halves(staged):
    whole = json.loads(staged)
    whole["document"]["routes"][0]["teleport"] = True
    text = json.dumps(whole["document"], separators=(",", ":"))
    head = staged.split(b'"document":')[0].replace(
        whole["digest"].encode(), sha256_hex(text.encode()).encode()
    )
    with pytest.raises(InvalidRequest, match=r"routes\[0\].teleport"):
        unpacked(head + b'"document":' + text.encode() + b"}")


@pytest.mark.any_engine
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


@pytest.mark.any_engine
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
    with one_event("revision.exported"):
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
    with one_event("revision.exported"):
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


def forged(staged: bytes, change, *, plain: bool = False) -> bytes:
    """A file that was made by hand, and whose digest is right."""
    document = json.loads(staged)["document"]
    change(document)
    encoded = json.dumps(document).encode() if plain else msgspec.json.encode(document, order="sorted")
    return packed_as_told(staged, encoded)


def packed_as_told(staged: bytes, encoded: bytes) -> bytes:
    told = {name: value for name, value in json.loads(staged).items() if name != "document"}
    head = json.dumps({**told, "digest": sha256_hex(encoded)}).encode()
    return head[:-1] + b',"document":' + encoded + b"}"


def nested(depth: int):
    return [nested(depth - 1)] if depth else []


def _price(document, **values):
    document["models"][0]["prices"] = [
        {"token_class": "input", "since": 0, "nano_per_million": 1_000_000, **values}
    ]


def _prompt(document, **values):
    version = {
        "number": 1, "digest": "0" * 64, "layers": {"user": "Hello {{ name }}"}, "output_schema": None, "parameters": {},
        "route": "", "variables": [{"name": "name", "type": "text"}], **values,
    }  # fmt: skip
    document["prompts"] = [
        {"slug": "greet", "project": "", "labels": {"production": version["number"]}, "versions": [version]}
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: _price(made, nano_per_million=-1), "less than nothing"),
        (lambda made: _price(made, nano_per_million=10**30), "too much"),
        (lambda made: _price(made, since=10**17), "no time"),
        (lambda made: _price(made, token_class="air"), "no token class"),
        (lambda made: made["models"][0]["parameters"].update(model="another"), "parameters"),
        (lambda made: made["models"][0].update(capabilities=["flight"]), "capabilities"),
        (lambda made: made["routes"].append({**made["routes"][0], "attempts": 1}), "there twice"),
        (lambda made: made["providers"].append(dict(made["providers"][0])), "there twice"),
        (lambda made: made["routes"][0].update(attempts=0), "attempts"),
        (lambda made: made["routes"][0].update(total_timeout_ms=-5), "total_timeout_ms"),
        (lambda made: made["routes"][0]["targets"][0].update(weight=-1), "weight"),
        (lambda made: made["routes"][0].update(slug="a/b"), "slug"),
        (lambda made: made["providers"][0].update(max_connections=0), "max_connections"),
        (lambda made: made["providers"][0].update(proxy_url="http://u:p@evil:1"), "proxy_url"),
        (lambda made: made["providers"][0].update(proxy_url="http://evil:3128"), "would read the keys"),
        (lambda made: made["providers"][0].update(kind="other"), "choices"),
        (lambda made: _prompt(made, variables=[{"name": 5}]), "version 1"),
        (lambda made: _prompt(made, variables=[{}]), "version 1"),
        (lambda made: _prompt(made, layers={"user": "{{ name"}), "version 1"),
        (lambda made: _prompt(made, parameters={"temperature": "hot"}), "version 1"),
        (lambda made: _prompt(made, number=-1), "number"),
        (lambda made: (_prompt(made), made["prompts"][0]["labels"].update(staging=9)), "not there"),
        (lambda made: (_prompt(made), made["prompts"][0].update(slug="support/greet")), "slug"),
        (lambda made: (_prompt(made), made["prompts"].append(dict(made["prompts"][0]))), "there twice"),
    ],
)  # fmt: skip
@pytest.mark.any_engine
def test_what_nobody_could_have_configured_is_not_served(staged, change, words):
    """The digest says that a file is what somebody wrote, and not that a console did."""
    with pytest.raises(UnprocessableEntity, match=words), no_event():
        services.import_revision(OPERATOR, data=forged(staged, change), reason="x")
    assert live_revision().number == 2 and not BroughtRevision.objects.exists()


@pytest.mark.any_engine
def test_a_prompt_that_is_sound_comes_along_and_its_digest_stands_for_one_text(staged):
    made = services.import_revision(OPERATOR, data=forged(staged, _prompt), reason="x")
    assert made.number == 3
    other = forged(staged, lambda document: _prompt(document, layers={"user": "Pay {{ name }}"}))
    with pytest.raises(UnprocessableEntity, match="says something else"), no_event():
        services.import_revision(OPERATOR, data=other, reason="x")


@pytest.mark.any_engine
def test_what_can_be_read_in_two_ways_is_refused_as_a_file(staged):
    document = json.loads(staged)["document"]
    encoded = msgspec.json.encode(document, order="sorted")
    deep = b"[" * 50_000 + b"]" * 50_000
    for data, words in (
        (forged(staged, lambda made: None, plain=True), "not in the form"),
        (packed_as_told(staged, encoded[:-1] + b',"routes":[]}'), "not in the form"),
        (packed_as_told(staged, encoded[:-1] + b',"zz":' + deep + b"}"), "cannot be served|no revision"),
        (b'{"a":' * 50_000, "no revision"),
        (forged(staged, lambda made: made.update(format=7)), "has the form 7"),
        (forged(staged, lambda made: made["routes"][0].update(static_answer="a\0b")), "cannot be kept"),
        (forged(staged, lambda made: made["models"][0]["parameters"].update(a=nested(150))), "too deeply"),
        (staged.replace(b'"reason":"tried', b'"reason":"\\u0000tried'), "none of a console's"),
    ):
        with pytest.raises(InvalidRequest, match=words) as refused, no_event():
            services.import_revision(OPERATOR, data=data, reason="x")
        assert refused.value.param == "file"


@pytest.mark.django_db(transaction=True)
def test_two_who_bring_the_same_at_once_bring_one():
    configuring.everything()
    file = exported(services.publish(OPERATOR, reason="here"))
    file = forged(file, lambda made: made["routes"][0].update(attempts=9))

    def bring():
        return services.bring(OPERATOR, data=file).pk

    def publish():
        return services.import_revision(OPERATOR, data=file, reason="x").number

    first, second = in_threads(bring, bring)
    assert first == second == BroughtRevision.objects.get().pk
    assert Event.objects.filter(action="revision.brought").count() == 1
    BroughtRevision.objects.all().delete()
    outcomes = in_threads(publish, publish, publish)
    assert [one for one in outcomes if isinstance(one, int)] == [2], outcomes
    assert all(isinstance(one, int | Conflict) for one in outcomes), outcomes
    assert live_revision().number == 2 and Revision.objects.count() == 2
