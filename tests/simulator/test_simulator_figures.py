"""What the simulator says was used: as OpenAI's organisation API does, so that the SDK reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import openai
import pytest

from tests.simulator.running import RunningSimulator

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START, END = int(MIDNIGHT.timestamp()), int((MIDNIGHT + timedelta(days=4)).timestamp())


def test_usage_and_costs_add_up_by_day_and_model(simulator: RunningSimulator, client: openai.OpenAI) -> None:
    used = [
        client.chat.completions.create(
            model="sim-gpt-4o+instant", messages=[{"role": "user", "content": "hi"}], max_tokens=8
        ).usage
        for _ in range(2)
    ]
    client.embeddings.create(model="sim-embed-small+instant", input="a few words")
    with openai.OpenAI(
        base_url=simulator.url, api_key="x", admin_api_key="sk-admin-1", max_retries=0
    ) as admin:
        usage = admin.admin.organization.usage
        told = usage.completions(start_time=START, end_time=END, group_by=["model"], limit=31)
        results = [result for bucket in told.data for result in bucket.results]
        assert [(one.model, one.num_model_requests) for one in results] == [("sim-gpt-4o+instant", 2)]
        assert results[0].input_tokens == sum(one.prompt_tokens for one in used if one)
        assert results[0].output_tokens == sum(one.completion_tokens for one in used if one)
        assert not told.has_more and len(told.data) == 4
        [embedded] = [
            one
            for bucket in usage.embeddings(start_time=START, end_time=END, limit=31).data
            for one in bucket.results
        ]
        assert embedded.model == "sim-embed-small+instant"
        costs = usage.costs(start_time=START, end_time=END, group_by=["line_item"], limit=31)
        paid = {one.line_item: one.amount.value for bucket in costs.data for one in bucket.results}
        assert paid["sim-gpt-4o+instant, output"] == pytest.approx(results[0].output_tokens * 10e-6)
        short = usage.completions(start_time=START, end_time=END, limit=3)
        assert short.has_more and short.next_page
        rest = usage.completions(start_time=START, end_time=END, limit=3, page=short.next_page)
        assert len(short.data) + len(rest.data) == 4 and not rest.has_more


def test_a_key_for_calls_may_not_ask(simulator: RunningSimulator) -> None:
    with (
        openai.OpenAI(
            base_url=simulator.url, api_key="x", admin_api_key="sk-proj-1", max_retries=0
        ) as client,
        pytest.raises(openai.PermissionDeniedError, match=r"api\.usage\.read"),
    ):
        client.admin.organization.usage.costs(start_time=START)


def test_it_knows_nothing_of_days_before_it_was_started(simulator: RunningSimulator) -> None:
    with (
        openai.OpenAI(
            base_url=simulator.url, api_key="x", admin_api_key="sk-admin-1", max_retries=0
        ) as admin,
        pytest.raises(openai.BadRequestError, match="since it was started"),
    ):
        admin.admin.organization.usage.costs(start_time=START - 30 * 86_400)
