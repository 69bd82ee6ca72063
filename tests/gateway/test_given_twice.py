"""A member that is given twice is read in two ways: it gets past no policy, names no object, and answers nobody else."""

from __future__ import annotations

import pytest

from llmops.core.verdicts import BEFORE, BLOCK
from tests.gateway.rig import Rig, Upstream, a_route
from tests.gateway.test_forwarding import MINE, THEIRS, configure
from tests.gateway.test_policing import SECRET, under


@pytest.mark.parametrize(
    "messages",
    [
        '[{"role": "user", "content": "SECRET", "content": "fine"}]',
        '[{"role": "user", "content": [{"type": "text", "text": "SECRET", "text": "fine"}]}]',
        '[{"role": "user", "content": [{"type": "text", "text": "SECRET"}], "content": null}]',
        '[{"role": "user", "cont\\u0065nt": "SECRET", "content": "fine"}]',
    ],
)
async def test_what_policies_look_at_is_told_once(rig: Rig, upstream: Upstream, messages: str) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    told = messages.replace("SECRET", SECRET).encode()
    refused = await rig.call(b'{"model": "small", "messages": %b}' % told)
    assert (refused.status, refused.error["param"]) == (400, "messages")
    assert "given twice" in refused.error["message"]
    assert not upstream.asked
    for fine in (
        '[{"role": "user", "content": null, "name": "x"}]',
        '[ {"content" : "a \\"b\\" c\\\\", "role":"user"} ]',
    ):
        answer = await rig.call(b'{"model": "small", "messages": %b}' % fine.encode())
        assert answer.status == 200, answer.body


async def test_what_names_an_object_is_told_once(rig: Rig, upstream: Upstream) -> None:
    configure(rig)
    rig.plane.objects.made("file", "file-mine", key=MINE, provider="up")
    rig.plane.objects.made("file", "file-theirs", key=THEIRS, provider="up")
    part = '{"type": "file", "file": {"file_id": "file-theirs", "file_id": "file-mine"}}'
    refused = await rig.call(
        b'{"model": "small", "messages": [{"role": "user", "content": [%b]}]}' % part.encode()
    )
    assert (refused.status, refused.error["param"]) == (400, "messages")
    assert not upstream.asked


async def test_it_answers_nobody_who_asked_for_the_other_half(rig: Rig, upstream: Upstream) -> None:
    rig.configure(routes=[a_route("chat", "small", cache_ttl_s=60)])
    twice = b'{"model": "chat", "messages": [{"role": "user", "content": "evil", "content": "hello"}]}'
    assert (await rig.call(twice)).headers["x-llmops-cache"] == "bypass"
    once = b'{"model": "chat", "messages": [{"role": "user", "content": "hello"}]}'
    assert (await rig.call(once)).headers["x-llmops-cache"] == "miss"
    assert (await rig.call(once)).headers["x-llmops-cache"] == "hit"
    assert len(upstream.asked) == 2
