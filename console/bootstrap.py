"""The first filling of an embedded installation; running it again changes nothing that is there.

What is generated (the administrator's password, service keys) is written to ``first-run.json`` before it is used, so
that a start that is cut off in the middle can be finished by the next one with the same values.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management import call_command

from console import demo, prepared
from console.declarative import apply_text
from console.embedded import write_private
from llmops.access.models import Project
from llmops.access.rules import SCOPES
from llmops.access.secrets import new_secret
from llmops.access.services import create_service_key, create_user
from llmops.base.master_keys import verify_master_keys
from llmops.base.pending_migrations import pending_migrations
from llmops.core.actors import Actor, command_actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict
from llmops.providers.services import replace_secret, update_provider
from llmops.serving.services import propose

_DEMO = Path(__file__).parent / "demo"
#: The key that ``embedded.yaml`` gives the simulator, which asks for none.
_SIMULATOR_KEY = "simulator-needs-no-key"


def bootstrap(tell: Callable[[str], None] = lambda _: None) -> None:
    """Migrate, check the master keys, and make the demo's configuration, administrator, keys and history if they are
    missing. ``tell`` is told of each of these that takes a while, as it begins."""
    _migrate(tell)
    verify_master_keys()
    actor = command_actor("bootstrap")
    first = _first_run()
    # Whoever is there already had their first start: nothing is made up for them later.
    if prepared.lacks_configuration():
        tell("Configuring the demo: providers, models, routes, prompts, budgets")
        if demo.wanted() == demo.WHOLE:
            prepared.history_file().write_text(prepared.WANTED)
        text = (_DEMO / "embedded.yaml").read_text().replace("@SIMULATOR_URL@", prepared.simulator_url())
        apply_text(actor, text=text, reason="The demo's configuration")
        if os.environ.get("OPENAI_API_KEY"):
            apply_text(actor, text=(_DEMO / "openai.yaml").read_text(), reason="OpenAI as a second provider")
    _follow_simulator(actor)
    _people_and_keys(actor, first)
    if prepared.wants_history():
        # Imported here, because it is needed once.
        from console.demo.history import fill

        tell("Making up the demo's calls of the last weeks")
        fill(actor)
        prepared.history_file().write_text("added\n")


def _migrate(tell: Callable[[str], None]) -> None:
    if pending := pending_migrations():
        tell(f"Bringing the database's tables up to date ({len(pending)} migrations)")
        call_command("migrate", interactive=False, verbosity=0)


def _first_run() -> dict[str, Any]:
    path = prepared.first_run_file()
    if path.exists():
        return json.loads(path.read_text())
    port = os.environ.get("PORT", "8000")
    first: dict[str, Any] = {
        "console_url": f"http://127.0.0.1:{port}",
        "gateway_url": f"http://127.0.0.1:{port}/v1",
        "username": "admin",
        "password": secrets.token_urlsafe(15),
    }
    if demo.wanted() == demo.EMPTY:
        first[prepared.EMPTY] = True
    else:
        first |= {
            "service_key": new_secret(),
            "admin_key": new_secret(),
            "experiments_key": new_secret(),
            "search_key": new_secret(),
            "model": "chat",
        }
    write_private(path, json.dumps(first, indent=2) + "\n")
    return first


def _people_and_keys(actor: Actor, first: dict[str, Any]) -> None:
    if prepared.lacks_people():
        create_user(actor, username=first["username"], password=first["password"], is_superuser=True)
    if not prepared.lacks_keys():
        return
    support = Project.objects.get(slug="support")
    create_service_key(
        actor,
        project=support,
        name="first key",
        scopes=["inference"],
        allowed_models=["*"],
        secret=first["service_key"],
    )
    create_service_key(
        actor,
        project=support,
        name="administration",
        scopes=SCOPES,
        allowed_models=["*"],
        secret=first["admin_key"],
    )
    for project in ("experiments", "search"):
        # Installations of earlier days were begun without these.
        if f"{project}_key" in first:
            create_service_key(
                actor,
                project=Project.objects.get(slug=project),
                name=project,
                scopes=["inference"],
                allowed_models=["*"],
                secret=first[f"{project}_key"],
            )


def _follow_simulator(actor: Actor) -> None:
    """The simulator listens where a port was free; the provider that stands for it follows."""
    simulator = prepared.misplaced_simulator()
    if simulator is not None:
        update_provider(actor, provider=simulator, changes={"base_url": prepared.simulator_url()})
        for key in simulator.credentials.filter(fingerprint=sha256_hex(_SIMULATOR_KEY.encode())[:12]):
            if key.state != "revoked":
                replace_secret(actor, credential=key, secret=_SIMULATOR_KEY)
        # Where publishing takes a second person it waits for one, and is not asked for at every start.
        with suppress(Conflict):
            propose(actor, reason="The simulator moved to another port.")
