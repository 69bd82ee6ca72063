"""``kill -9`` between opening an incident and telling of it, and around each message: there is one incident, everybody is told at least
once, and who is told twice knows it by the message's id. On either database, with real processes and receivers."""

from __future__ import annotations

import json
from collections import defaultdict
from email import message_from_bytes
from pathlib import Path

from tests.installation import Installation
from tests.tools.services import says, service

SCRIPT = "from tests.alerts.killing import main; main({hook!r}, {letters!r})"
#: What went out before its worker died goes out again, as nobody knows that it did.
TWICE = {"after-sending-before-its-record", "within-its-record"}


def test_whatever_a_worker_dies_of_everybody_is_told_of_one_incident(
    installation: Installation, tmp_path: Path
) -> None:
    letters = tmp_path / "letters"
    letters.mkdir()
    with service(says("200 OK")) as hook:
        url = f"http://127.0.0.1:{hook.port}/hook"
        done = installation.manage("shell", "-c", SCRIPT.format(hook=url, letters=str(letters)))
        found = json.loads(next(line[5:] for line in done.stdout.splitlines() if line.startswith("TOLD ")))

        posted: dict[str, list[str]] = defaultdict(list)
        for head, body in hook.requests:
            posted[json.loads(body)["data"]["rule"]].append(head["webhook-id"])
    mailed: dict[str, list[str]] = defaultdict(list)
    for path in sorted(letters.iterdir()):
        for text in path.read_bytes().split(b"-" * 79 + b"\n"):
            if text.strip():
                letter = message_from_bytes(text)
                mailed[letter["subject"].rpartition("route ")[2]].append(letter["message-id"])

    assert len(found) == 7
    for name, told in found.items():
        assert told["incidents"] == told["events"] == 1 and told["trail"], (name, told)
        assert told["told"] == [["a-mail", "sent", "opened"], ["b-hook", "sent", "opened"]], (name, told)
        assert sorted(kind for kind, _ in told["timeline"]) == ["opened", "told", "told"], (name, told)
        assert len(posted[name]) == (2 if name in TWICE else 1), (name, posted[name])
        assert len(set(posted[name])) == 1 and posted[name][0] in told["ids"], name
        assert len(mailed[name]) >= 1 and len(set(mailed[name])) == 1, (name, mailed[name])
