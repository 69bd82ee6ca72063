"""``manage.py shell`` runs this: 1,000 prompts of 20 versions and 200 routes, made as rows. Prints what a session takes."""

from __future__ import annotations

from typing import Any

#: Rows are made at once, past the services: what is measured is publishing them, not writing them.
FILL = """
import json, sys
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from llmops.core.actors import command_actor
from llmops.prompts.content import checked, digest_of
from llmops.prompts.models import Label, LabelMove, Prompt, PromptVersion
from llmops.prompts.rendering import RENDERER
from llmops.providers import services as providers
from llmops.providers.models import Model, Route

PROMPTS, VERSIONS, ROUTES = {prompts}, {versions}, {routes}
actor = command_actor("bench")
first = Model.objects.get(slug="bench-model")
alike = {{name: getattr(first.current, name) for name in (
    "upstream_model", "context_window", "max_output_tokens", "default_max_output_tokens", "capabilities"
)}}
twin = providers.create_model(actor, slug="bench-twin", provider=first.current.provider, **alike)
for price in first.prices.all():
    providers.add_price(actor, model=twin, token_class=price.token_class, nano_per_million=price.nano_per_million)
providers.create_route(actor, slug="flip", targets=[(first, 100)])
models = list(Model.objects.order_by("slug"))
for number in range(ROUTES):
    first, second, third = (models[(number + step) % len(models)] for step in range(3))
    providers.create_route(actor, slug=f"route-{{number}}", targets=[(first, 90), (second, 10)], fallbacks=[third])
said = "Be exact and polite, and say why you decided. " * 20
schema = {{"type": "object", "properties": {{"label": {{"type": "string"}}}}, "required": ["label"]}}
usual = checked({{
    "system": "You triage tickets of {{{{ brand }}}}. " + said, "task": "Classify the ticket.", "user": "{{{{ ticket }}}}",
    "output_schema": schema, "parameters": {{"temperature": 0}},
}})
prompts = Prompt.objects.bulk_create(Prompt(slug=f"prompt-{{number}}") for number in range(PROMPTS))
versions = []
for index, prompt in enumerate(prompts):
    for number in range(1, VERSIONS + 1):
        content = usual | {{"system": f"{{usual['system']}} Version {{number}} of {{index}}.", "route": f"route-{{index % ROUTES}}"}}
        versions.append(PromptVersion(
            prompt=prompt, number=number, content=content, digest=digest_of(content), renderer=RENDERER, created_by="bench"
        ))
PromptVersion.objects.bulk_create(versions, batch_size=2000)
newest = [versions[index * VERSIONS + VERSIONS - 1] for index in range(PROMPTS)]
middle = [versions[index * VERSIONS + VERSIONS // 2] for index in range(PROMPTS)]
for prompt, version in zip(prompts, newest):
    prompt.current = version
Prompt.objects.bulk_update(prompts, ["current"], batch_size=200)
Label.objects.bulk_create(
    Label(prompt=prompt, name=name, version=version)
    for name, pointed in (("production", middle), ("staging", newest)) for prompt, version in zip(prompts, pointed)
)
LabelMove.objects.bulk_create(
    LabelMove(prompt=prompt, name=name, to_version=version.number, reason="bench", moved_by="bench")
    for name, pointed in (("production", middle), ("staging", newest)) for prompt, version in zip(prompts, pointed)
)
user = get_user_model().objects.create(username="bench", is_superuser=True, is_staff=True)
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(json.dumps({{
    "cookie": f"{{settings.SESSION_COOKIE_NAME}}={{session.session_key}}", "prompt": str(prompts[7].pk),
    "route": str(Route.objects.get(slug="route-7").pk),
}}))
"""

#: Changes one thing and publishes it, so often as asked; then moves every label at once, and publishes that. Prints seconds:
#: of the call, and the Unix time at which it was committed.
PUBLISH = """
import json, sys, time
from llmops.core.actors import command_actor
from llmops.prompts.models import Label, LabelMove, PromptVersion
from llmops.providers import services as providers
from llmops.providers.models import Model, Route
from llmops.serving import services

actor = command_actor("bench")
models = {{name: Model.objects.get(slug=name) for name in ("bench-model", "bench-twin")}}


def flip():
    # Services that call this route see by the model which revision answers.
    route = Route.objects.get(slug="flip")
    present = route.targets.get().model.slug
    other = "bench-twin" if present == "bench-model" else "bench-model"
    providers.update_route(actor, route=route, targets=[(models[other], 100)])


for number in range({rounds}):
    flip()
    began = time.perf_counter()
    revision = services.publish(actor, reason="bench")
    print(json.dumps({{"seconds": time.perf_counter() - began, "at": time.time(), "revision": revision.number,
                       "bytes": len(revision.document)}}), flush=True)
    time.sleep({rest})
if {all_at_once}:
    first = {{prompt: pk for prompt, pk in PromptVersion.objects.filter(number=3).values_list("prompt_id", "pk")}}
    rows = list(Label.objects.filter(name="production"))
    for row in rows:
        row.version_id = first[row.prompt_id]
    Label.objects.bulk_update(rows, ["version"], batch_size=200)
    LabelMove.objects.bulk_create(
        LabelMove(prompt_id=row.prompt_id, name="production", to_version=3, reason="bench", moved_by="bench") for row in rows
    )
    flip()
    began = time.perf_counter()
    revision = services.publish(actor, reason="bench")
    print(json.dumps({{"seconds": time.perf_counter() - began, "at": time.time(), "revision": revision.number,
                       "bytes": len(revision.document)}}), flush=True)
"""


def fill(**sizes: Any) -> str:
    return FILL.format(**sizes)


def publish(*, rounds: int, rest: float, all_at_once: bool) -> str:
    return PUBLISH.format(rounds=rounds, rest=rest, all_at_once=all_at_once)
