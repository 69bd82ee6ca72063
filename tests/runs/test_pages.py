"""Pages about runs: the key that they call with, issued anew; and what a reviewer is shown of the run behind a call."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmops.access import services as access
from llmops.runs import services
from llmops.tools import services as tools
from tests.cast import COMMAND, bearer, issue, no_event, one_event, signed_in
from tests.runs.conftest import call, plays
from tests.runs.making import actions, begun, done, worked
from tests.tools.making import a_service, a_tool

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


def page(who, path):
    answer = signed_in(who).get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_revoked_key_is_issued_anew_on_the_page_of_runs(lab, plane):
    key, _ = services.key_in_use(lab.support)
    assert "Issue another key" not in page(lab.alice, "/runs/")
    access.revoke_service_key(COMMAND, key=key.service_key)
    run = done(lab)
    assert (run.state, run.error_code) == ("failed", "runs_key_revoked")
    assert "Issue another key" in page(lab.alice, f"/runs/{run.pk}/")
    assert "Issue another key" in page(lab.alice, "/runs/")
    # Who may not manage keys is told, and nobody of another project is.
    assert "none of them can" in page(lab.rita, "/runs/") and "Issue another" not in page(lab.rita, "/runs/")
    assert "none of them can" not in page(lab.charlie, "/runs/")
    send = {"project": str(lab.support.pk)}
    rita, charlie, alice = signed_in(lab.rita), signed_in(lab.charlie), signed_in(lab.alice)
    with no_event():
        assert rita.post("/runs/renew-key/", send).status_code == 403
        assert charlie.post("/runs/renew-key/", send).status_code == 404
        assert alice.post("/runs/renew-key/", {"project": "x"}).status_code == 404
    with one_event("service_key.created"):
        assert alice.post("/runs/renew-key/", send).status_code == 302
    assert done(lab).state == "succeeded"
    with no_event():
        again = alice.post("/runs/renew-key/", send)
    assert again.status_code == 409 and "works; there is no need" in again.content.decode()


def test_whoever_decides_sees_the_question_and_nobody_sees_that_of_another_project(lab, plane):
    plane.script = plays([call("refund", {"amount": 500, "customer": "Ada"})], "Done.")
    asks = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "It broke \u202e, says Ada."},
    ]
    run = done(lab, tools=["refund"], messages=asks)
    (action,) = actions(run)
    shown = page(lab.rita, f"/inbox/{action.request_id}/")
    assert (
        "The run so far" in shown and "It broke \\u202e, says Ada." in shown and f"/runs/{run.pk}/" in shown
    )
    # A service may name whatever run it likes: neither that of another project nor one that did not ask for this is shown.
    for about in (run, begun(lab, messages=[{"role": "user", "content": "Something else"}])):
        for project in (lab.support, lab.search):
            name = f"other-{project.slug}-{about.pk.hex[-6:]}"
            a_tool(project, name)
            made = tools.propose(
                a_service(project, name=name),
                project=project,
                tool=name,
                arguments={"amount": 500, "customer": "Eve"},
                run=str(about.pk),
            )
            found = page(lab.alice, f"/inbox/{made.request_id}/")
            assert "The run so far" not in found and "It broke" not in found


def test_a_list_of_runs_reads_none_of_their_texts(lab, plane):
    worked(begun(lab))
    client = bearer(issue(lab.support, "runs", name="lists").secret)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(client.get("/api/v1/runs/").json()["results"]) == 1
    about = [one["sql"] for one in queries if "runs_run" in one["sql"]]
    assert about and not any("sealed" in sql for sql in about)
