"""A second person: exactly what was approved goes live, or nothing; what changed meanwhile is void and says so."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from llmops.approvals.models import Request
from llmops.approvals.services import decide, expire_requests
from llmops.audit.models import Event
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.prompts import services as prompts
from llmops.providers import services as providers
from llmops.serving import rules, services
from llmops.serving.models import PublishingRule, Revision
from llmops.serving.selectors import live_revision, pending, publishing_rule
from tests import configuring
from tests.cast import bearer, every_scope, in_threads, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.kept import kept

pytestmark = pytest.mark.django_db


def person(user):
    return Actor("user", str(user.pk), user.username)


@kept
def ruled(cast):
    """One revision is live, a change waits, and whatever is published takes two."""
    _, _, chat = configuring.everything()
    services.publish(OPERATOR, reason="one")
    services.change_rule(person(cast.alice), always=True, projects=[], restore_alone=True, reason="careful")
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 7})
    return chat


def asked(cast, **values):
    return services.propose(person(cast.alice), reason="more patience", **values)


def test_nothing_is_live_before_another_person_approves_and_then_exactly_that(cast, ruled):
    digest = pending().digest
    with one_event("revision.publish_requested"):
        request = asked(cast)
    assert isinstance(request, Request)
    assert live_revision().number == 1
    assert request.content["changes"] == ["route chat: attempts 3 → 7"]
    with pytest.raises(PermissionDenied, match="yourself"), no_event():
        decide(person(cast.alice), request_id=request.pk, approves=True, seen=request.digest)
    with one_event("revision.publish_approved") as seen:
        decide(person(cast.root), request_id=request.pk, approves=True, seen=request.digest)
    live = live_revision()
    assert (live.number, live.digest, live.author, live.approved_by) == (2, digest, "alice", "root")
    assert live.reason == "more patience"
    assert seen.event.after["live_revision"] == 2
    assert seen.event.after["changes"] == ["route chat: attempts 3 → 7"]


@pytest.mark.any_engine
def test_one_person_does_not_go_round_it(cast, ruled):
    with pytest.raises(services.SecondPersonNeeded), no_event():
        services.publish(person(cast.alice), reason="alone")
    with pytest.raises(services.SecondPersonNeeded), no_event():
        services.publish(OPERATOR, reason="by a file")
    client = bearer(every_scope(cast.support).secret)
    answer = client.post("/api/v1/revisions/", {"reason": "by key"}, content_type="application/json")
    assert answer.status_code == 202
    assert Request.objects.get(pk=answer.json()["request"]).required == 2
    assert Revision.objects.count() == 1


def test_what_is_configured_otherwise_meanwhile_makes_it_void(cast, ruled):
    request = asked(cast)
    providers.update_route(OPERATOR, route=ruled, changes={"attempts": 8})
    root = signed_in(cast.root)
    page = root.get(f"/admin/approvals/request/{request.pk}/approve/").content.decode()
    assert "changed since this was asked for" in page
    with one_event("revision.publish_voided"):
        row = decide(person(cast.root), request_id=request.pk, approves=True, seen=request.digest)
    assert row.state == Request.VOID
    assert "changed since" in row.result["why"]
    assert live_revision().number == 1
    with pytest.raises(Conflict, match="over"), no_event():
        decide(person(cast.root), request_id=request.pk, approves=True, seen=request.digest)
    # And it can be asked for anew.
    assert asked(cast).state == Request.OPEN


def test_a_revision_that_goes_live_ends_what_was_asked_for(cast, ruled):
    first = asked(cast)
    decide(person(cast.root), request_id=first.pk, approves=True, seen=first.digest)
    providers.update_route(OPERATOR, route=ruled, changes={"attempts": 8})
    second = asked(cast)
    # Back in an emergency: one person, one click.
    services.restore(person(cast.alice), number=1, reason="it is on fire")
    second.refresh_from_db()
    assert (second.state, live_revision().number) == (Request.VOID, 3)
    assert "Revision 3 went live meanwhile" in second.result["why"]
    assert Event.objects.filter(action="revision.publish_voided").count() == 1
    inbox = signed_in(cast.root)
    assert "Void" in inbox.get("/inbox/?show=decided").content.decode()
    assert inbox.get(f"/inbox/{second.pk}/").status_code == 200


def test_what_is_void_by_the_time_it_is_approved_in_the_inbox_is_said_to_be(cast, ruled):
    request = asked(cast)
    providers.update_route(OPERATOR, route=ruled, changes={"attempts": 9})
    body = {"what": "approve", "request": str(request.pk), f"seen_{request.pk}": request.digest}
    answer = signed_in(cast.root).post("/inbox/decide/", body, follow=True)
    assert answer.status_code == 200 and "Nothing was done" in answer.content.decode()
    assert "Your approval counts" not in answer.content.decode()


def test_going_back_can_take_two_as_well(cast, ruled):
    first = asked(cast)
    decide(person(cast.root), request_id=first.pk, approves=True, seen=first.digest)
    services.change_rule(person(cast.alice), always=True, projects=[], restore_alone=False, reason="strict")
    with pytest.raises(services.SecondPersonNeeded), no_event():
        services.restore(person(cast.alice), number=1, reason="back")
    back = services.propose(person(cast.alice), what=rules.RESTORE, object_id="1", reason="back")
    decide(person(cast.root), request_id=back.pk, approves=True, seen=back.digest)
    live = live_revision()
    assert (live.number, live.restores, live.digest) == (3, 1, Revision.objects.get(number=1).digest)


def test_the_same_is_not_asked_for_twice_and_runs_out(cast, ruled):
    request = asked(cast)
    with pytest.raises(Conflict, match="already"), no_event():
        asked(cast)
    assert expire_requests(timezone.now() + timedelta(days=8)) == 1
    request.refresh_from_db()
    assert request.state == Request.EXPIRED
    assert live_revision().number == 1


@pytest.mark.any_engine
def test_the_rule_is_made_stricter_by_one_and_looser_by_two(cast, ruled):
    wanted = services.change_rule(
        person(cast.alice), always=False, projects=["support"], restore_alone=True, reason="less"
    )
    assert isinstance(wanted, Request)
    assert publishing_rule().always
    with pytest.raises(PermissionDenied), no_event():
        decide(person(cast.alice), request_id=wanted.pk, approves=True, seen=wanted.digest)
    with one_event("publishing.loosen_approved"):
        decide(person(cast.root), request_id=wanted.pk, approves=True, seen=wanted.digest)
    assert publishing_rule() == rules.Rule(False, frozenset({"support"}), True)
    assert PublishingRule.objects.count() == 1
    with pytest.raises(InvalidRequest) as refused:
        services.change_rule(OPERATOR, always=False, projects=["nowhere"], restore_alone=True, reason="x")
    assert refused.value.param == "projects"


@pytest.mark.any_engine
def test_only_prompts_of_a_named_project_take_two(cast):
    _, _, chat = configuring.everything()
    services.publish(OPERATOR, reason="one")
    services.change_rule(OPERATOR, always=False, projects=["support"], restore_alone=True, reason="careful")
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 7})
    assert isinstance(services.propose(OPERATOR, reason="a route"), Revision)
    for project, needed in ((cast.search, False), (cast.support, True)):
        prompt = prompts.create_prompt(OPERATOR, slug="greeting", project=project)
        prompts.add_version(OPERATOR, prompt=prompt, content={"task": "Say hello."})
        made = services.propose(person(cast.alice), reason="words")
        assert isinstance(made, Request) == needed


@pytest.mark.any_engine
def test_the_approver_sees_the_same_words_and_the_same_comparison(cast, ruled):
    alice, root = signed_in(cast.alice), signed_in(cast.root)
    page = alice.get("/admin/serving/revision/publish/").content.decode()
    assert "takes a second person" in page
    hidden = dict(re.findall(r'<input type="hidden" name="(expected_\w+|as_of)" value="(\w*)">', page))
    with one_event("revision.publish_requested"):
        answer = alice.post("/admin/serving/revision/publish/", {"reason": "patience", **hidden}, follow=True)
    assert "another person approves it" in answer.content.decode()
    request = Request.objects.get()
    for address in ("change", "approve"):
        shown = root.get(f"/admin/approvals/request/{request.pk}/{address}/").content.decode()
        assert "route chat: attempts 3 → 7" in shown
        assert "<del>3</del>" in shown
        assert "<ins>7</ins>" in shown
    with one_event("revision.publish_approved"):
        root.post(f"/admin/approvals/request/{request.pk}/approve/", {"seen": request.digest, "reason": ""})
    listed = root.get("/admin/serving/revision/").content.decode()
    assert "alice" in listed
    assert live_revision().approved_by == "root"


@pytest.mark.django_db(transaction=True)
def test_an_approval_and_an_edit_at_once_never_make_live_what_nobody_saw(cast, ruled):
    request = asked(cast)
    wanted = request.content["digest"]

    def approve():
        return decide(person(cast.root), request_id=request.pk, approves=True, seen=request.digest).state

    def edit():
        providers.update_route(OPERATOR, route=ruled, changes={"attempts": 9})
        return "edited"

    outcomes = in_threads(approve, edit)
    assert outcomes[1] == "edited"
    live = live_revision()
    if outcomes[0] == Request.EXECUTED:
        assert (live.number, live.digest) == (2, wanted)
    else:
        assert outcomes[0] == Request.VOID or isinstance(outcomes[0], Conflict), outcomes
        assert live.number == 1
