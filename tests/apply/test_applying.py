"""Applying a file: through the services, all or nothing, twice as once."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from console.declarative.apply import apply_text
from console.declarative.checks import BadFile
from console.declarative.export import export_text
from console.declarative.plan import _stay
from console.declarative.state import read_state
from llmops.access import services as access
from llmops.access.authentication import find_key
from llmops.access.models import Project, ServiceKey
from llmops.audit.models import Event
from llmops.base.live import versions
from llmops.budgets.models import Budget
from llmops.budgets.services import archive_budget, update_budget
from llmops.providers import services as providers
from llmops.providers.models import Credential, Model, ModelConfig, Price, Provider, Route
from llmops.serving.models import Revision
from llmops.serving.selectors import live_revision, load_snapshot
from tests import configuring
from tests.cast import in_threads, last_sequence
from tests.configuring import OPERATOR, secret_of
from tests.kept import kept

pytestmark = pytest.mark.django_db

CI_SECRET = "ci-secret-0123456789-abcdefghij"
WHOLE = """
version: 1
projects:
  - {slug: support, name: Support assistant, owner: ops@example.com, cost_center: CC-100}
providers:
  - slug: sim
    kind: simulator
    base_url: http://127.0.0.1:9/v1
    allow_private_network: true
    credentials:
      - {name: primary, secret: "plain:sk-PLANTED-0123456789abcdef"}
      - {name: reference, secret: "env:SIM_KEY"}
models:
  - slug: large
    provider: sim
    model: large-1
    context_window: 128000
    max_output_tokens: 16384
    default_max_output_tokens: 1024
    parameters: {temperature: 0.2}
    capabilities: [chat, stream]
    prices: {input: "2.50", cached_input: "1.25", output: "10.00"}
  - {slug: small, provider: sim, model: small-1, context_window: 8000, max_output_tokens: 1000, default_max_output_tokens: 100}
routes:
  - slug: chat
    targets: [{model: large, weight: 90}, {model: small, weight: 10}]
    fallbacks: [small]
budgets:
  - {scope: "project:support", limit_usd: "50.00", thresholds: [50, 80, 100]}
  - {name: ci-day, scope: "key:support/ci", limit_usd: "1.00", period: day}
service_keys:
  - {name: ci, project: support, secret: "env:CI_SERVICE_KEY", rpm: 600, tpm: 200000, concurrency: 64}
policies:
  - slug: pii
    everywhere: true
    checks:
      - {kind: personal_data, stage: before, action: redact}
"""
ENVIRONMENT = {"CI_SERVICE_KEY": CI_SECRET, "SIM_KEY": "sk-of-the-environment"}


def apply(text=WHOLE, **values):
    values.setdefault("environment", ENVIRONMENT)
    return apply_text(OPERATOR, text, **values)


@kept
def applied_whole() -> None:
    apply()


def actions(after: int) -> list[str]:
    return list(
        Event.objects.filter(sequence__gt=after).order_by("sequence").values_list("action", flat=True)
    )


def exported() -> str:
    return export_text(read_state())


def test_a_whole_file_configures_everything_with_an_event_for_each_step():
    start = last_sequence()
    applied = apply()
    assert actions(start) == [
        "project.created",
        "provider.created",
        "credential.added",
        "credential.added",
        "model.created",
        "price.added",
        "price.added",
        "price.added",
        "model.created",
        "policy.created",
        "route.created",
        "service_key.created",
        "budget.created",
        "budget.created",
        "revision.published",
    ]
    assert len(applied.plan.steps) == 14
    assert applied.revision == 1
    assert any("small has no price" in warning for warning in applied.warnings)
    snapshot = load_snapshot()
    assert [target.model for target in snapshot.routes["chat"].targets] == ["large", "small"]
    key = find_key(CI_SECRET)
    assert (key.name, key.rpm, key.scopes, key.allowed_routes) == ("ci", 600, ["inference"], ["*"])
    assert Budget.objects.get(slug="ci-day").scope_value == str(key.pk)
    assert Budget.objects.get(slug="project-support-month").limit_nano == 50 * 10**9
    assert {row.state for row in Credential.objects.all()} == {"active"}
    assert secret_of(Credential.objects.get(name="primary")) == "sk-PLANTED-0123456789abcdef"


def test_the_second_time_there_is_nothing_to_do(applied_whole):
    before, numbers = last_sequence(), versions()
    applied = apply()
    assert applied.nothing_to_do
    assert applied.plan.steps == ()
    assert last_sequence() == before
    assert versions() == numbers
    assert Revision.objects.count() == 1


def test_a_dry_run_changes_nothing_and_says_everything():
    before, numbers = last_sequence(), versions()
    rehearsed = apply(dry_run=True)
    assert last_sequence() == before
    assert versions() == numbers
    assert not Project.objects.exists()
    assert not Revision.objects.exists()
    real = apply()
    assert [str(step) for step in rehearsed.plan.steps] == [str(step) for step in real.plan.steps]
    assert (rehearsed.revision, rehearsed.published) == (real.revision, real.published)


def test_without_publishing_what_changed_stays_a_draft_until_the_next_time():
    assert apply(with_publish=False).revision is None
    assert live_revision() is None
    again = apply()
    assert again.plan.steps == ()
    assert again.revision == 1
    assert not again.nothing_to_do


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("old", "new", "steps", "events"),
    [
        ("name: Support assistant", "name: Helpers", ["~ project support"], ["project.changed"]),
        (
            "kind: simulator",
            "kind: simulator\n    name: Sim",
            ["~ provider sim"],
            ["provider.changed"],
        ),
        (
            "max_output_tokens: 16384",
            "max_output_tokens: 8192",
            ["~ model large"],
            ["model.pinned", "revision.published"],
        ),
        (
            'output: "10.00"',
            'output: "12.00"',
            ["+ model large: price"],
            ["price.added", "revision.published"],
        ),
        ("weight: 90", "weight: 80", ["~ route chat"], ["route.changed", "revision.published"]),
        ("fallbacks: [small]", "fallbacks: []", ["~ route chat"], ["route.changed", "revision.published"]),
        (
            'limit_usd: "50.00"',
            'limit_usd: "49.99"',
            ["~ budget project-support-month"],
            ["budget.changed"],
        ),
        (
            "fallbacks: [small]",
            "fallbacks: [small]\n    fallbacks_for: {timeout: [small], rate_limit: [small]}",
            ["~ route chat"],
            ["route.changed", "revision.published"],
        ),
        (
            "{model: large, weight: 90}, {model: small, weight: 10}]",
            "{model: small, weight: 10}]\n    context: {strategy: larger_model, larger_model: large}",
            ["~ route chat"],
            ["route.changed", "revision.published"],
        ),
        (
            "allow_private_network: true",
            "allow_private_network: true\n    passthrough: [/vector_stores/*]",
            ["~ provider sim"],
            ["provider.changed", "revision.published"],
        ),
        (
            "cost_center: CC-100",
            "cost_center: CC-100, default_route: chat",
            ["~ default route of support"],
            ["project.changed"],
        ),
        ("cost_center: CC-100", "cost_center: CC-100, tpm: 5", ["~ project support"], ["project.changed"]),
        (
            "before, action: redact}",
            "before, action: block}",
            ["~ policy pii"],
            ["policy.changed", "revision.published"],
        ),
        (
            "everywhere: true",
            "everywhere: false",
            ["~ policy pii"],
            ["policy.changed", "revision.published"],
        ),
        ("- slug: pii", "- slug: pii\n    description: Ours", ["~ policy pii"], ["policy.changed"]),
        ("rpm: 600", "rpm: 600, priority: batch", ["~ service key support/ci"], ["service_key.changed"]),
        ("rpm: 600", "rpm: 601", ["~ service key support/ci"], ["service_key.changed"]),
        ("env:SIM_KEY", "env:OTHER_KEY", ["~ credential sim/reference: replace"], ["credential.replaced"]),
        ("PLANTED-0", "PLANTED-1", ["~ credential sim/primary: replace"], ["credential.replaced"]),
    ],
)
def test_one_difference_is_one_step_and_one_event(applied_whole, old, new, steps, events):
    start = last_sequence()
    assert WHOLE.count(old) == 1
    changed = WHOLE.replace(old, new)
    applied = apply(changed)
    assert [str(step).splitlines()[0] for step in applied.plan.steps] == steps
    assert actions(start) == events
    assert apply(changed).nothing_to_do


@pytest.mark.any_engine
def test_a_new_project_sends_to_a_route_of_the_same_file():
    text = WHOLE.replace("cost_center: CC-100", "cost_center: CC-100, default_route: chat")
    start = last_sequence()
    apply(text)
    assert Project.objects.get().default_route == "chat"
    assert actions(start).count("project.changed") == 1
    assert apply(text).nothing_to_do
    assert "default_route: chat" in exported()
    with pytest.raises(BadFile) as refused:
        apply(text.replace("default_route: chat", "default_route: chit"))
    assert [(found.line, "no route 'chit'" in found.reason) for found in refused.value.found] == [(4, True)]


@pytest.mark.any_engine
def test_what_the_file_does_not_name_is_left_alone(applied_whole):
    configuring.credential(Provider.objects.get(), name="mine", secret="sk-mine-0123456789", activate=True)
    other = configuring.model("my-model", Provider.objects.get())
    configuring.route("mine", other)
    providers.add_price(
        OPERATOR, model=Model.objects.get(slug="large"), token_class="reasoning", nano_per_million=7
    )
    apply()
    assert apply().nothing_to_do
    assert Route.objects.get(slug="mine").archived_at is None
    assert load_snapshot().routes["mine"]


@pytest.mark.any_engine
def test_what_was_put_away_is_brought_back(applied_whole):
    route = Route.objects.get()
    providers.archive_route(OPERATOR, route=route)
    for model in Model.objects.all():
        providers.archive_model(OPERATOR, model=model)
    providers.archive_provider(OPERATOR, provider=Provider.objects.get())
    access.archive_project(OPERATOR, project=Project.objects.get())
    providers.drain_credential(OPERATOR, credential=Credential.objects.get(name="primary"))
    start = last_sequence()
    applied = apply()
    assert actions(start) == [
        "project.restored",
        "provider.restored",
        "credential.activated",
        "model.restored",
        "model.restored",
        "route.restored",
    ]
    assert applied.revision is None
    assert apply().nothing_to_do


def faults(text, **values) -> list[tuple[int, str]]:
    before = last_sequence()
    counts = [
        model.objects.count() for model in (Project, Provider, Credential, Model, Route, Budget, ServiceKey)
    ]
    with pytest.raises(BadFile) as refused:
        apply(text, **values)
    assert last_sequence() == before
    assert counts == [
        model.objects.count() for model in (Project, Provider, Credential, Model, Route, Budget, ServiceKey)
    ]
    return [(found.line, found.reason) for found in refused.value.found]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("model: large-1", "model: large-1\n    provider_typo: x", 17, "no member"),
        (
            "provider: sim\n    model: large-1",
            "provider: nobody\n    model: large-1",
            15,
            "no provider 'nobody'",
        ),
        ("{model: small, weight: 10}", "{model: tiny, weight: 10}", 26, "no model 'tiny'"),
        ("fallbacks: [small]", "fallbacks: [tiny]", 27, "no model 'tiny'"),
        ("project:support", "project:nobody", 29, "no project 'nobody'"),
        ("key:support/ci", "key:support/nobody", 30, "no service key 'support/nobody'"),
        ("project: support, secret", "project: nobody, secret", 32, "no project 'nobody'"),
        ("owner: ops@example.com", "owner: nobody", 4, "email"),
        ("allow_private_network: true", "allow_private_network: false", 8, "plain http"),
        ("http://127.0.0.1:9/v1", "http://169.254.169.254/v1", 8, "metadata"),
        ("kind: simulator", "kind: openai", 16, "alias"),
        ("temperature: 0.2", "max_tokens: 5", 20, "cannot be a default"),
        ("max_output_tokens: 16384", "max_output_tokens: 200000", 14, ""),
        ("env:SIM_KEY", "vault:secret/openai", 12, "path#field"),
        ("env:SIM_KEY", "env:CONSOLE_MASTER_KEYS", 12, "belongs to the console"),
        ("env:SIM_KEY", "file:/etc/passwd", 12, "directories"),
        ("plain:sk-PLANTED-0123456789abcdef", "plain:sk-****", 11, "mask"),
        ("env:CI_SERVICE_KEY", "env:NOT_SET", 32, "cannot be read by this process"),
        ("env:CI_SERVICE_KEY", "plain:short", 32, "24 to 200 characters"),
        ("thresholds: [50, 80, 100]", "timezone: Mars/Olympus", 29, "time zone"),
    ],
)
def test_a_fault_anywhere_has_its_line_and_nothing_is_applied(old, new, line, words):
    assert WHOLE.count(old) == 1
    text = WHOLE.replace(old, new)
    found = faults(text)
    assert any(at == line and words in reason for at, reason in found), found


def test_what_cannot_be_published_is_not_applied():
    targets = "targets: [{model: large, weight: 90}, {model: small, weight: 10}]"
    assert faults(WHOLE.replace(targets, "targets: []")) == [
        (25, "cannot be published: Route chat has no target.")
    ]
    [(line, reason)] = faults(WHOLE.replace("slug: chat", "slug: small"), dry_run=True)
    assert (line, "has the name of a model" in reason) == (25, True)


@pytest.mark.any_engine
def test_what_stands_in_the_way_elsewhere_is_told_too():
    configuring.route("empty")
    assert faults(WHOLE) == [(1, "cannot be published: Route empty has no target.")]


@pytest.mark.any_engine
def test_revoked_and_archived_names_are_told_with_their_line(applied_whole):
    providers.revoke_credential(OPERATOR, credential=Credential.objects.get(name="primary"))
    access.revoke_service_key(OPERATOR, key=ServiceKey.objects.get())
    archive_budget(OPERATOR, budget_id=Budget.objects.get(slug="ci-day").pk)
    found = faults(WHOLE)
    assert [line for line, _ in found] == [11, 30, 32]
    assert all("another name" in reason for _, reason in found)


def test_a_service_key_keeps_its_secret_where_it_cannot_be_read_and_rotates_where_it_differs(applied_whole):
    applied = apply(environment={})
    assert applied.nothing_to_do
    [note] = [note for note in applied.plan.notes if "cannot be read" in note]
    assert "so the present one" in note and "env:CI_SERVICE_KEY" in note
    assert find_key(CI_SECRET)
    other = "another-secret-0123456789-abcdef"
    start = last_sequence()
    apply(environment={"CI_SERVICE_KEY": other})
    assert actions(start) == ["service_key.rotated"]
    assert find_key(other) == find_key(CI_SECRET)
    assert apply(environment={"CI_SERVICE_KEY": other}).nothing_to_do


def test_prices_are_added_when_they_differ_and_scheduled_ones_once(applied_whole):
    tomorrow = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    text = WHOLE.replace(
        'output: "10.00"', f'output: [{{usd: "10.00"}}, {{usd: "8.00", from: "{tomorrow.isoformat()}"}}]'
    )
    applied = apply(text)
    assert [str(step).splitlines()[0] for step in applied.plan.steps] == ["+ model large: price"]
    assert apply(text).nothing_to_do
    assert apply().nothing_to_do
    assert Price.objects.get(token_class="output", effective_from=tomorrow).nano_per_million == 8 * 10**9
    [(line, reason)] = faults(text.replace("8.00", "7.00"))
    assert (line, "never edited" in reason) == (22, True)


@pytest.mark.any_engine
def test_prices_of_the_past_count_as_the_one_in_force():
    past = datetime(2024, 1, 1, tzinfo=UTC).isoformat()
    text = WHOLE.replace('output: "10.00"', f'output: [{{usd: "1.00"}}, {{usd: "10.00", from: "{past}"}}]')
    apply(text)
    assert Price.objects.get(token_class="output").nano_per_million == 10 * 10**9
    assert apply(text).nothing_to_do
    assert apply().nothing_to_do


@pytest.mark.any_engine
def test_a_floating_name_with_its_reason_and_a_reason_too_many():
    text = WHOLE.replace("kind: simulator", "kind: openai").replace(
        "http://127.0.0.1:9/v1", "https://api.openai.com/v1"
    )
    text = text.replace("model: large-1", "model: gpt-4o-2024-08-06\n    floats_reason: not needed")
    text = text.replace("model: small-1", "model: gpt-4o-mini, floats_reason: wanted")
    apply(text)
    assert {row.floats_reason for row in ModelConfig.objects.all()} == {"", "wanted"}
    assert apply(text).nothing_to_do


def test_no_secret_is_in_the_export_the_trail_or_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    apply()
    text = exported()
    trail = "\n".join(repr(row) for row in Event.objects.values_list())
    for secret in ("sk-PLANTED", CI_SECRET, "sk-of-the-environment"):
        assert secret not in text
        assert secret not in trail
        assert secret not in caplog.text
    assert "env:SIM_PRIMARY" in text
    assert "env:SIM_KEY" in text
    assert "env:SUPPORT_CI_SERVICE_KEY" in text


@pytest.mark.any_engine
def test_an_export_has_nothing_to_do_where_it_came_from_and_makes_the_same_elsewhere(applied_whole):
    text = exported()
    before = last_sequence()
    assert apply(text, environment={}).nothing_to_do
    assert last_sequence() == before


@pytest.mark.any_engine
def test_a_placeholder_replaces_the_key_only_when_it_leads_to_another(applied_whole):
    text = exported()
    same = {"SIM_PRIMARY": "sk-PLANTED-0123456789abcdef"}
    assert apply(text, environment=same).nothing_to_do
    applied = apply(text, environment={"SIM_PRIMARY": "sk-quite-another-0123456789"})
    assert [str(step).splitlines()[0] for step in applied.plan.steps] == ["~ credential sim/primary: replace"]
    assert Credential.objects.get(name="primary").source == "env"


@pytest.mark.any_engine
def test_what_is_out_of_use_is_not_exported_and_neither_what_speaks_of_it(applied_whole):
    archive_budget(OPERATOR, budget_id=Budget.objects.get(slug="project-support-month").pk)
    access.revoke_service_key(OPERATOR, key=ServiceKey.objects.get())
    providers.revoke_credential(OPERATOR, credential=Credential.objects.get(name="primary"))
    text = exported()
    for gone in ("ci-day", "project-support-month", "service_keys", "SIM_PRIMARY"):
        assert gone not in text
    assert apply(text).nothing_to_do


@pytest.mark.django_db(transaction=True)
def test_two_at_once_make_everything_once():
    outcomes = in_threads(*(lambda: apply() for _ in range(3)))
    assert sorted(outcome.nothing_to_do for outcome in outcomes) == [False, True, True], outcomes
    assert Revision.objects.count() == 1
    assert Event.objects.filter(action="provider.created").count() == 1


@pytest.mark.django_db(transaction=True)
def test_files_and_people_change_the_same_rows_at_once_without_standing_in_each_others_way():
    apply()
    other = (
        WHOLE.replace("Support assistant", "Helpers")
        .replace('"50.00"', '"60.00"')
        .replace("rpm: 600", "rpm: 6")
    )
    other = other.replace("weight: 90", "weight: 9").replace("fallbacks: [small]", "fallbacks: []")

    def with_files():
        for _ in range(4):
            apply(other)
            apply()
        return "files"

    def by_hand():
        project, key, route = Project.objects.get(), ServiceKey.objects.get(), Route.objects.get()
        budget = Budget.objects.get(slug="project-support-month")
        for number in range(1, 9):
            access.update_project(OPERATOR, project=project, cost_center=f"CC-{number}")
            update_budget(OPERATOR, budget_id=budget.pk, limit_nano=number)
            access.update_service_key(OPERATOR, key=key, tpm=number)
            providers.update_route(OPERATOR, route=route, changes={"attempts": 1 + number})
        return "by hand"

    assert in_threads(with_files, by_hand) == ["files", "by hand"]
    apply()
    assert apply().nothing_to_do


def test_a_change_is_told_in_the_words_of_the_file(applied_whole):
    plan = apply(WHOLE.replace('limit_usd: "50.00"', 'limit_usd: "49.99"')).plan
    assert str(plan.steps[0]).splitlines()[1].strip() == "limit_usd: 50.00 USD → 49.99 USD"


def test_several_secrets_that_stay_are_one_note():
    assert list(_stay([])) == []
    assert list(_stay([("service key a/ci", "env:A"), ("alert channel ops", "env:B")])) == [
        "2 secrets cannot be read by this process, so the present ones stay: service key a/ci (env:A), alert channel ops (env:B)."
    ]
