"""Images through the gateway: what is sent, relayed, held and billed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from llmops.core.tokens.made import INPUT_IMAGE, image_tokens
from llmops.gateway.endpoints.making import media_usage
from llmops.serving.snapshot import ProjectEntry
from tests.gateway.making import (
    IMAGE_IN,
    IMAGE_OUT,
    PICTURE,
    TEXT_IN,
    TOKEN_PRICES,
    event,
    form,
    image_usage,
    images,
    per,
    png,
    post_form,
    says,
)
from tests.gateway.rig import KEY, Asked, Reply, Rig, a_budget, a_key, a_model, a_route, cuts, fails

GENERATIONS, EDITS, VARIATIONS = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"


def drawing(rig: Rig, **changes: Any) -> None:
    given: dict[str, Any] = {
        "upstream_model": "gpt-image-1",
        "prices": TOKEN_PRICES,
        "max_output_tokens": 0,
        "capabilities": ("images",),
    }
    rig.configure(
        models=[a_model("draw", **(given | changes)), a_model("other", **(given | changes))],
        budgets=[a_budget()],
        routes=[a_route("pictures", "draw", fallbacks=("other",))],
    )


async def test_an_image_is_made_and_billed_by_its_tokens(rig: Rig) -> None:
    drawing(rig)
    answered = json.dumps(images(2, image_usage(20, 544)), indent=1).encode()
    rig.upstream.does(says(answered))
    body = {"model": "draw", "prompt": "a cat", "n": 2, "size": "1024x1024", "quality": "low", "odd": [1.50]}
    answer = await rig.call(body, path=GENERATIONS)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, answered, "application/json")
    [asked] = rig.upstream.asked
    assert (asked.path, asked.json) == (GENERATIONS, body | {"model": "gpt-image-1"})
    outcome = rig.outcome()
    assert outcome.cost == 20 * TEXT_IN + 544 * IMAGE_OUT
    assert (outcome.tokens.input, outcome.tokens.output, outcome.tokens.estimated) == (20, 544, False)
    assert (outcome.tokens.media.images, outcome.tokens.media.image_output) == (2, 544)
    assert rig.ended()[0].origin.endpoint == "images.generations"
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * TEXT_IN + 2 * 272 * IMAGE_OUT
    rig.nothing_held()


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({}, 6240),
        ({"size": "auto", "quality": "auto"}, 6240),
        ({"size": "1024x1536", "quality": "medium"}, 1584),
        ({"quality": "low"}, 408),
        ({"size": "1536x1024", "n": 3}, 3 * 6208),
        ({"quality": "low", "size": "1024x1024", "stream": True, "partial_images": 3}, 272 + 300),
    ],
)
async def test_what_is_held_is_the_most_that_size_and_quality_can_take(
    rig: Rig, members: dict[str, Any], tokens: int
) -> None:
    drawing(rig)
    rig.upstream.does(fails(400))
    body = {"model": "draw", "prompt": "a cat"} | members
    await rig.call(body, path=GENERATIONS)
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * TEXT_IN + tokens * IMAGE_OUT


@pytest.mark.parametrize(
    ("model", "size", "quality", "bound"),
    [
        ("gpt-image-1-mini", "", "", 6240),
        ("gpt-image-1.5-2025-12-16", "1024x1024", "high", 4160),
        ("gpt-image-2", "1024x1024", "high", 7024),
        ("gpt-image-2-2026-04-21", "3584x2048", "low", 7024 * 7),
        ("gpt-image-2", "auto", "", 55561),
        ("gpt-image-2", "1024x1024", "max", None),
        ("gpt-image-2.5-flare", "1024x1024", "low", None),
        ("gpt-image-10", "1024x1024", "low", None),
        ("flux", "", "", None),
    ],
)
def test_bounds_of_images(model: str, size: str, quality: str, bound: int | None) -> None:
    assert image_tokens(model, size, quality) == bound


@pytest.mark.parametrize(
    ("changes", "members", "field"),
    [
        ({"upstream_model": "gpt-image-2.5-flare"}, {}, "model"),
        ({"upstream_model": "gpt-image-2"}, {"quality": "xhigh"}, "quality"),
        ({}, {"output_format": "svg"}, "output_format"),
        ({}, {"output_format": "gif", "frame_count": 9}, "output_format"),
    ],
)
async def test_what_cannot_be_bounded_is_refused_under_a_hard_budget(
    rig: Rig, changes: dict[str, Any], members: dict[str, Any], field: str
) -> None:
    drawing(rig, **changes)
    answer = await rig.call({"model": "draw", "prompt": "a cat"} | members, path=GENERATIONS)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (422, "not_metered", field)
    assert field in answer.error["message"] and "'team'" in answer.error["message"]
    assert not rig.upstream.asked
    rig.nothing_held()


async def test_a_models_own_maximum_bounds_what_no_table_does(rig: Rig) -> None:
    drawing(rig, upstream_model="gpt-image-2.5-flare", max_output_tokens=9_000)
    rig.upstream.does(says(images(1, image_usage(10, 8_000))))
    body = {"model": "draw", "prompt": "a cat", "quality": "max"}
    assert (await rig.call(body, path=GENERATIONS)).status == 200
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * TEXT_IN + 9_000 * IMAGE_OUT
    assert "max_tokens" not in rig.upstream.asked[0].json


async def test_without_a_hard_budget_nothing_needs_a_bound(rig: Rig) -> None:
    rig.configure(
        models=[a_model("draw", upstream_model="flux", prices=TOKEN_PRICES, max_output_tokens=0)],
        budgets=[a_budget(hard=False)],
    )
    rig.upstream.does(says(images(1, image_usage(10, 800))))
    assert (await rig.call({"model": "draw", "prompt": "x"}, path=GENERATIONS)).status == 200
    assert rig.outcome().cost == 10 * TEXT_IN + 800 * IMAGE_OUT


async def test_a_model_priced_by_the_image_costs_what_it_brings(rig: Rig) -> None:
    drawing(rig, upstream_model="dall-e-3", prices=per("images", 40_000_000))
    rig.upstream.does(says(images(2)))
    answer = await rig.call({"model": "draw", "prompt": "x", "n": 3, "size": "1792x1024"}, path=GENERATIONS)
    assert answer.status == 200
    assert rig.held()[0].worst_cost == 3 * 40_000_000
    outcome = rig.outcome()
    assert (outcome.cost, outcome.tokens.media.images, outcome.tokens.estimated) == (80_000_000, 2, False)
    assert (outcome.tokens.input, outcome.tokens.output) == (0, 0)


async def test_an_answer_without_usage_is_charged_at_most_what_was_held(rig: Rig) -> None:
    drawing(rig)
    rig.upstream.does(says(images(1)))
    await rig.call({"model": "draw", "prompt": "a cat", "quality": "low"}, path=GENERATIONS)
    outcome = rig.outcome()
    assert outcome.tokens.estimated
    assert 408 * IMAGE_OUT < outcome.cost <= rig.held()[0].worst_cost
    assert outcome.tokens.media.images == 1


# ---------------------------------------------------------------------- streams


def partial(index: int) -> bytes:
    return event("image_generation.partial_image", partial_image_index=index, b64_json="A" * 70_000)


def completed(used: Any = None, kind: str = "image_generation") -> bytes:
    more = {} if used is None else {"usage": used}
    return event(f"{kind}.completed", b64_json="A" * 100_000, **more)


async def test_partial_images_are_relayed_byte_true_and_usage_is_read(rig: Rig) -> None:
    drawing(rig)
    events = [partial(0), b": thinking\n\n", partial(1), completed(image_usage(20, 500))]
    whole = b"".join(events)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*[whole[at : at + 33_333] for at in range(0, len(whole), 33_333)])

    rig.upstream.does(script)
    body = {"model": "draw", "prompt": "x", "stream": True, "partial_images": 2}
    answer = await rig.call(body, path=GENERATIONS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.body, answer.complete) == (whole, True)
    assert rig.outcome().cost == 20 * TEXT_IN + 500 * IMAGE_OUT
    assert rig.ended()[0].origin.streamed


async def test_a_stream_of_several_images_ends_with_the_last_and_costs_them_all(rig: Rig) -> None:
    drawing(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(completed(image_usage(20, 500)), partial(0), completed(image_usage(20, 600)))

    rig.upstream.does(script)
    await rig.call({"model": "draw", "prompt": "x", "stream": True, "n": 2}, path=GENERATIONS)
    outcome = rig.outcome()
    assert (outcome.status, outcome.cost) == ("ok", 40 * TEXT_IN + 1_100 * IMAGE_OUT)
    assert outcome.tokens.media.images == 2


async def test_a_stream_that_brings_fewer_images_in_good_order_is_whole(rig: Rig) -> None:
    drawing(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(completed(image_usage(20, 500)))

    rig.upstream.does(script)
    answer = await rig.call({"model": "draw", "prompt": "x", "stream": True, "n": 2}, path=GENERATIONS)
    assert answer.body == completed(image_usage(20, 500))
    assert (rig.outcome().status, rig.outcome().cost) == ("ok", 20 * TEXT_IN + 500 * IMAGE_OUT)


@pytest.mark.parametrize("end", ["cut", "close", "half"])
async def test_a_stream_that_breaks_ends_with_an_error_and_is_settled(rig: Rig, end: str) -> None:
    drawing(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(partial(0), end=False)
        if end == "half":
            await reply.chunk(completed()[:500])
        if end == "cut":
            reply.cut()
        else:
            await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    body = {"model": "draw", "prompt": "x", "stream": True, "partial_images": 1, "quality": "low"}
    answer = await rig.call(body, path=GENERATIONS)
    assert answer.body.startswith(partial(0))
    assert b"stream_interrupted" in answer.body[len(partial(0)) :]
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.estimated) == ("interrupted", True)
    assert 0 < outcome.cost <= rig.held()[0].worst_cost
    rig.nothing_held()


# ---------------------------------------------------------------------- edits and variations


async def test_an_edit_as_a_form_goes_on_byte_true_with_another_model(rig: Rig) -> None:
    drawing(rig)
    rig.upstream.does(says(images(1, image_usage(620, 300, images=600))))
    parts = [
        ("image[]", ("a.png", "image/png", png())),
        ("image[]", ("b.png", "image/png", png())),
        ("mask", ("m.png", "image/png", png())),
        ("prompt", "a hat"),
        ("model", "pictures"),
        ("quality", "low"),
        ("size", "1024x1024"),
        ("n", "2"),
        ("odd", "kept"),
    ]
    answer = await post_form(rig, EDITS, *parts)
    assert answer.status == 200
    [asked] = rig.upstream.asked
    sent = [("model", "gpt-image-1") if name == "model" else (name, value) for name, value in parts]
    assert (asked.path, asked.body) == (EDITS, form(*sent))
    assert asked.headers["content-type"].endswith("a-boundary-of-the-client")
    assert asked.headers["content-length"] == str(len(asked.body))
    assert rig.outcome().cost == 20 * TEXT_IN + 600 * IMAGE_IN + 300 * IMAGE_OUT
    fields = sum(len(value) for _, value in parts if isinstance(value, str))
    held = (fields + 3 * INPUT_IMAGE) * IMAGE_IN + 2 * 272 * IMAGE_OUT
    assert rig.held()[0].worst_cost == held
    assert rig.ended()[0].origin.bytes_in == len(form(*parts))


async def test_a_field_that_is_called_an_image_counts_as_one(rig: Rig) -> None:
    drawing(rig)
    rig.upstream.does(says(images(1, image_usage(620, 300, images=600))))
    parts = [PICTURE, ("image[]", "iVBORw0KGgo="), ("mask", "x"), ("model", "draw"), ("quality", "low")]
    answer = await post_form(rig, EDITS, *parts, ("size", "1024x1024"))
    assert answer.status == 200
    fields = sum(len(value) for _, value in parts if isinstance(value, str)) + len("1024x1024")
    assert rig.held()[0].worst_cost == (fields + 3 * INPUT_IMAGE) * IMAGE_IN + 272 * IMAGE_OUT


@pytest.mark.parametrize("depth", [2, 900])
def test_usage_is_a_list_of_usages_and_no_list_of_lists(depth: int) -> None:
    stated = json.dumps(image_usage(20, 300)).encode()
    assert media_usage(b"[" + stated + b"," + stated + b"]", output="image") is not None
    assert media_usage(b"[" * depth + stated + b"]" * depth, output="image") is None


async def test_an_edit_in_json_counts_its_images_and_not_their_bytes(rig: Rig) -> None:
    drawing(rig)
    rig.upstream.does(says(images(1, image_usage(620, 300, images=600))))
    url = "data:image/png;base64," + base64.b64encode(png() * 500).decode()
    body = {
        "model": "draw",
        "prompt": "x",
        "quality": "low",
        "images": [{"image_url": url}, {"image_url": "https://example.com/a.png"}],
        "mask": {"image_url": url},
    }
    answer = await rig.call(body, path=EDITS)
    assert answer.status == 200
    assert rig.upstream.asked[0].json == body | {"model": "gpt-image-1"}
    text = len(json.dumps(body)) - 2 * len(url)
    assert rig.held()[0].worst_cost == (text + 3 * INPUT_IMAGE) * IMAGE_IN + 408 * IMAGE_OUT


async def test_an_edit_streams(rig: Rig) -> None:
    drawing(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(completed(image_usage(20, 500), kind="image_edit"))

    rig.upstream.does(script)
    answer = await post_form(rig, EDITS, PICTURE, ("model", "draw"), ("prompt", "x"), ("stream", "true"))
    assert answer.body == completed(image_usage(20, 500), kind="image_edit")
    assert rig.outcome().status == "ok"


async def test_a_form_is_sent_again_to_the_next_model(rig: Rig) -> None:
    drawing(rig)
    rig.upstream.does(cuts, fails(500), says(images(1)))
    data = png() + b"\0" * 3_000_000
    parts = [("image", ("cat.png", "image/png", data)), ("model", "pictures")]
    rig.plane.max_media = 10_000_000
    answer = await post_form(rig, VARIATIONS, *parts)
    assert answer.status == 200
    bodies = {asked.body for asked in rig.upstream.asked}
    assert len(rig.upstream.asked) == 3
    assert bodies == {form(parts[0], ("model", "gpt-image-1"))}
    assert answer.headers["x-llmops-model"] == "other"
    rig.nothing_held()


async def test_default_parameters_of_a_model_become_parts(rig: Rig) -> None:
    drawing(rig, parameters={"quality": "low", "background": "opaque", "include": ["a", "b"], "seed": 7})
    rig.upstream.does(says(images(1)))
    await post_form(rig, EDITS, ("model", "draw"), PICTURE, ("quality", "high"))
    more = [("background", "opaque"), ("include[]", "a"), ("include[]", "b"), ("seed", "7")]
    sent = form(("model", "gpt-image-1"), PICTURE, ("quality", "high"), *more)
    assert rig.upstream.asked[0].body == sent


async def test_a_form_without_a_model_goes_the_projects_default_route(rig: Rig) -> None:
    key = a_key()
    rig.configure(
        models=[a_model("draw", prices=TOKEN_PRICES)],
        keys={KEY: key},
        routes=[a_route("pictures", "draw")],
        projects={key.project_id: ProjectEntry(key.project_id, "support", default_route="pictures")},
    )
    rig.upstream.does(says(images(1)))
    assert (await post_form(rig, VARIATIONS, PICTURE, ("n", "1"))).status == 200
    assert rig.upstream.asked[0].body == form(PICTURE, ("n", "1"), ("model", "sim-draw"))
    assert rig.ended()[0].origin.route == "pictures"
    assert (await post_form(rig, VARIATIONS, PICTURE, ("model", ""))).status == 400


async def test_what_is_made_is_decided_by_the_caller_and_not_by_defaults(rig: Rig) -> None:
    """A default of size or quality is bounded as if it were asked for; one that changes the answer is not sent."""
    drawing(
        rig, parameters={"quality": "low", "size": "1024x1024", "partial_images": 3, "output_format": "svg"}
    )
    rig.upstream.does(says(images(1)))
    body = {"model": "draw", "prompt": "x"}
    assert (await rig.call(body, path=GENERATIONS)).status == 200
    assert rig.upstream.asked[0].json == body | {
        "model": "gpt-image-1",
        "quality": "low",
        "size": "1024x1024",
    }
    assert rig.held()[0].worst_cost == len(json.dumps(body)) * TEXT_IN + 272 * IMAGE_OUT


async def test_an_image_that_a_provider_keeps_must_be_the_callers(rig: Rig) -> None:
    drawing(rig)
    body = {"model": "draw", "prompt": "x", "images": [{"file_id": "file-1"}]}
    answer = await rig.call(body, path=EDITS)
    assert (answer.status, answer.error["param"]) == (404, "file_id")
    assert not rig.upstream.asked


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (GENERATIONS, {"prompt": "x"}, "model"),
        (GENERATIONS, {"model": "draw", "n": 0}, "n"),
        (GENERATIONS, {"model": "draw", "n": "2"}, "n"),
        (GENERATIONS, {"model": "draw", "size": 7}, "size"),
        (GENERATIONS, {"model": "draw", "stream": "yes"}, "stream"),
        (GENERATIONS, {"model": "draw", "partial_images": 99}, "partial_images"),
        (VARIATIONS, {"model": "draw"}, "Content-Type"),
    ],
)
async def test_bad_json_is_refused_with_the_member(rig: Rig, path: str, body: Any, param: str) -> None:
    drawing(rig)
    answer = await rig.call(body, path=path)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert rig.outcome().status == "refused"
    assert not rig.upstream.asked


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([PICTURE], "model"),
        ([("model", "draw")], "image"),
        ([PICTURE, ("model", "draw"), ("n", "many")], "n"),
        ([PICTURE, ("model", "draw"), ("n", "999")], "n"),
        ([PICTURE, ("model", "draw"), ("model", "other")], "model"),
        ([PICTURE, ("model", ("f", "text/plain", b"draw"))], "model"),
        ([PICTURE, ("model", "draw"), ("n", "1"), ("n[]", "10")], "n[]"),
        ([PICTURE, ("model", "draw"), ("quality[0]", "high")], "quality[0]"),
    ],
)
async def test_a_bad_form_is_refused_with_the_part(rig: Rig, parts: Any, param: str) -> None:
    drawing(rig)
    answer = await post_form(rig, EDITS, *parts)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert not rig.upstream.asked


async def test_a_model_that_is_not_for_images_is_refused_and_one_that_says_nothing_is_not(rig: Rig) -> None:
    rig.configure(
        models=[
            a_model("talk", capabilities=("chat", "tools")),
            a_model("any", prices=TOKEN_PRICES, upstream_model="gpt-image-1"),
        ]
    )
    rig.upstream.does(says(images(1)))
    answer = await rig.call({"model": "talk", "prompt": "x"}, path=GENERATIONS)
    assert (answer.status, answer.error["code"]) == (400, "model_not_supported")
    assert "it is for chat, tools" in answer.error["message"]
    assert (await rig.call({"model": "any", "prompt": "x"}, path=GENERATIONS)).status == 200
