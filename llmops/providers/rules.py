"""The fixed vocabulary of providers, and decisions about models that need no database."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from urllib.parse import SplitResult, urlsplit

from llmops.core.digests import canonical_json
from llmops.core.money import NANO
from llmops.core.redaction import SECRET_FIELDS
from llmops.core.texts import text_problem
from llmops.providers.network_guard import host_refusal

PROVIDER_KINDS = [
    ("openai", "OpenAI"),
    ("azure", "Azure OpenAI"),
    ("compatible", "OpenAI-compatible"),
    ("simulator", "Simulator (not a real model)"),
]
CREDENTIAL_SOURCES = [
    ("sealed", "Kept here, encrypted"),
    ("env", "Environment variable"),
    ("file", "File"),
    ("vault", "HashiCorp Vault"),
    ("aws", "AWS Secrets Manager"),
]
CREDENTIAL_STATES = [
    ("staged", "Staged"),
    ("probed", "Probed"),
    ("active", "Active"),
    ("draining", "Draining"),
    ("revoked", "Revoked"),
]
#: state -> states it may become
CREDENTIAL_MOVES: dict[str, frozenset[str]] = {
    "staged": frozenset({"probed", "active", "revoked"}),
    "probed": frozenset({"active", "revoked"}),
    # Back to staged: a rotation that is taken back.
    "active": frozenset({"draining", "revoked", "staged"}),
    "draining": frozenset({"active", "revoked"}),
    "revoked": frozenset(),
}

INPUT, CACHED_INPUT, CACHE_WRITE, OUTPUT, REASONING = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
)
AUDIO_INPUT, AUDIO_OUTPUT, IMAGE_INPUT, IMAGE_OUTPUT = (
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)
#: What is billed and is not a token; prices are for a million of them all the same.
CHARACTERS, SECONDS, IMAGES = "characters", "seconds", "images"
#: Service tiers with prices of their own: a class of ``TIERED_CLASSES``, an underscore and the tier, such as
#: ``input_flex``. A class without a price for the tier costs what it costs otherwise.
FLEX, PRIORITY, BATCH = "flex", "priority", "batch"
TIERED_CLASSES = (INPUT, CACHED_INPUT, CACHE_WRITE, OUTPUT, REASONING)
TOKEN_CLASSES = [
    (INPUT, "Input"),
    (CACHED_INPUT, "Cached input"),
    (CACHE_WRITE, "Cache write"),
    (OUTPUT, "Output"),
    (REASONING, "Reasoning"),
    (AUDIO_INPUT, "Audio input"),
    (AUDIO_OUTPUT, "Audio output"),
    (IMAGE_INPUT, "Image input"),
    (IMAGE_OUTPUT, "Image output"),
    (CHARACTERS, "Characters of text spoken"),
    (SECONDS, "Seconds of audio heard"),
    (IMAGES, "Images made"),
    ("batch_input", "Batch input"),
    ("batch_output", "Batch output"),
    ("input_flex", "Input, flex tier"),
    ("cached_input_flex", "Cached input, flex tier"),
    ("cache_write_flex", "Cache write, flex tier"),
    ("output_flex", "Output, flex tier"),
    ("reasoning_flex", "Reasoning, flex tier"),
    ("input_priority", "Input, priority tier"),
    ("cached_input_priority", "Cached input, priority tier"),
    ("cache_write_priority", "Cache write, priority tier"),
    ("output_priority", "Output, priority tier"),
    ("reasoning_priority", "Reasoning, priority tier"),
]


def unit_of(token_class: str) -> str:
    """What a price of this class is for a million of: tokens, or what the class names."""
    return token_class if token_class in (CHARACTERS, SECONDS, IMAGES) else "tokens"


def highest_price(token_class: str) -> int:
    """Nanodollars for a million of a class: a hundred times what the dearest model costs. A slip of some digits more would have
    calls cost what no column can sum."""
    return (10**4 if unit_of(token_class) == "tokens" else 10**8) * NANO


#: Classes of failure after which a route may name fallbacks of their own; what is in none of them takes the general ones.
RATE_LIMIT, TIME_OUT, SERVER_ERROR, CREDENTIAL, CONTENT_FILTER, CONTEXT_LENGTH = (
    "rate_limit",
    "timeout",
    "server_error",
    "credential",
    "content_filter",
    "context_length",
)
FAILURE_CLASSES = [
    (RATE_LIMIT, "Rate limited, or out of quota"),
    (TIME_OUT, "No answer in time"),
    (SERVER_ERROR, "Error of the provider, or no connection"),
    (CREDENTIAL, "Credential refused"),
    (CONTENT_FILTER, "Stopped by the provider's content filter"),
    (CONTEXT_LENGTH, "Input longer than the context window"),
]
REFUSE, DROP_OLDEST, SUMMARIZE, LARGER_MODEL = "refuse", "drop_oldest", "summarize", "larger_model"
CONTEXT_STRATEGIES = [
    (REFUSE, "Refuse the call"),
    (DROP_OLDEST, "Leave out the oldest turns"),
    (SUMMARIZE, "Summarise the oldest turns"),
    (LARGER_MODEL, "Use a model with a larger window"),
]
NO_LAST_RESORT, CACHED_ANSWER, STATIC_ANSWER = "none", "cached", "static"
LAST_RESORTS = [
    (NO_LAST_RESORT, "The error"),
    (CACHED_ANSWER, "An earlier answer to the same request, however old"),
    (STATIC_ANSWER, "A fixed answer"),
]
#: of a fixed answer, in characters
LONGEST_ANSWER = 8_000
MOST_POLICIES = 20

#: First segments of paths under ``/v1/`` that the gateway answers itself: nothing of them is passed through.
SERVED_SEGMENTS = frozenset(
    {
        "audio", "batches", "chat", "completions", "embeddings", "files", "images", "models", "moderations",
        "responses", "uploads",
    }
)  # fmt: skip
MOST_PASSTHROUGH = 50
MOST_SHARED_OBJECTS = 500
_SHARED_OBJECT = re.compile(r"[A-Za-z][A-Za-z0-9._:~@=+-]{2,199}\*?")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SEGMENT = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,99}")


def passthrough_problem(patterns: object) -> str | None:
    """What is wrong with a provider's list of paths that are passed through, or None.

    A pattern is a path below ``/v1`` whose segments are plain names; ``*`` stands for one segment, and at the end for
    everything below. The first segment is a name that the gateway does not serve itself, so that no pattern covers a path
    where calls are priced, checked and owned.
    """
    if not isinstance(patterns, list | tuple):
        return "give a list of paths, such as /vector_stores/*"
    if len(patterns) > MOST_PASSTHROUGH:
        return f"at most {MOST_PASSTHROUGH} paths are kept"
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.startswith("/"):
            return f"{str(pattern)[:60]!r} does not start with a slash, as /vector_stores/* does"
        first, *others = pattern[1:].split("/")
        if first in ("", "*"):
            return f"{pattern[:60]!r} would cover every path; start it with a name, as /vector_stores/* does"
        if first in SERVED_SEGMENTS:
            return f"{pattern[:60]!r} is served by the gateway itself, with prices, limits and policies"
        for segment in (first, *others):
            if segment != "*" and not _SEGMENT.fullmatch(segment):
                return (
                    f"{pattern[:60]!r} holds {segment[:60]!r}; between slashes stand letters, digits, . _ ~ - "
                    "(not first a dot), or one * alone"
                )
    repeated = next((pattern for index, pattern in enumerate(patterns) if pattern in patterns[:index]), None)
    return f"{repeated!r} is named twice" if repeated else None


def shared_objects_problem(ids: object) -> str | None:
    """What is wrong with a provider's list of objects that every project may name, or None.

    An id as the provider gave it, or the beginning of ids (three characters at least) and ``*``.
    """
    if not isinstance(ids, list | tuple):
        return "give a list of ids, such as vs_abc123"
    if len(ids) > MOST_SHARED_OBJECTS:
        return f"at most {MOST_SHARED_OBJECTS} ids are kept; pmpt_* stands for all that begin so"
    for index, one in enumerate(ids):
        if not isinstance(one, str) or not _SHARED_OBJECT.fullmatch(one):
            return (
                f"{str(one)[:60]!r} is neither an id, such as vs_abc123, nor three characters or more of its beginning "
                "and *, such as pmpt_*"
            )
        if one in ids[:index]:
            return f"{one[:60]!r} is named twice"
    return None


def policies_problem(names: object) -> str | None:
    """What is wrong with the names of a route's policies, or None; whether they exist is seen when they are published."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return "give a list of names"
    if len(names) > MOST_POLICIES:
        return f"a route names at most {MOST_POLICIES} policies"
    for index, name in enumerate(names):
        if not _SLUG.fullmatch(name):
            return f"{name[:60]!r} is not the name of a policy"
        if name in names[:index]:
            return f"{name!r} is named twice"
    return None


def covers(pattern: str, path: str) -> bool:
    """Whether a pattern of ``passthrough`` allows ``path``, a path below ``/v1`` such as ``/vector_stores/vs_1/files``."""
    wanted, given = pattern.split("/"), path.split("/")
    if "" in given[1:] or ".." in given or "." in given:
        return False
    if wanted[-1] == "*" and len(given) >= len(wanted):
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(
        mine in ("*", theirs) for mine, theirs in zip(wanted, given, strict=True)
    )


CAPABILITIES = (
    "chat",
    "stream",
    "tools",
    "json_schema",
    "vision",
    "audio",
    "reasoning",
    "embeddings",
    "images",
    "speech",
    "transcription",
    "moderation",
    "rerank",
)

_DATED = re.compile(r"(\d{4}-\d{2}-\d{2}|-\d{4}$|@\d+|:[0-9a-f]{8,}|-\d{3}$)")


_REASONING = re.compile(
    r"(?i)(?:^|[/:._-])(?:o[1-9](?![0-9a-z])|gpt-[5-9](?!.*chat)|gpt-oss|codex|deepseek-r[1-9]|qwq|magistral"
    r"|gemini-(?:2\.5|[3-9])(?!.*lite)|grok-(?:3-mini|[4-9]))|reason|think"
)


def looks_reasoning(upstream_model: str) -> bool:
    """Whether a model of this name thinks in tokens that are billed and need not be shown, as far as names tell."""
    return _REASONING.search(upstream_model) is not None


def looks_floating(kind: str, upstream_model: str) -> bool:
    """Whether a name may change its meaning at the provider: OpenAI's and Azure's names without a date do.

    Embedding models carry their generation in the name and are not re-pointed; simulator and self-hosted names are
    whatever their operator says.
    """
    if kind not in ("openai", "azure"):
        return False
    if upstream_model.startswith(("text-embedding-", "ft:")):
        return False
    return _DATED.search(upstream_model) is None


_MASKS = re.compile(
    r"^[*•·xX.\-_]{3,}$|\*{3,}|[•·]{3,}|\.{3}|…|\[redacted\]|\[hidden\]|<hidden>|<redacted>", re.IGNORECASE
)


def looks_masked(secret: str) -> bool:
    """Whether a text is a mask or a shortened key that came back from a form, not a key."""
    return _MASKS.search(secret) is not None


def url_problem(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a provider's base URL, or None.

    ``https`` everywhere; ``http`` only where private networks are allowed. No credentials, query or fragment.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "this is not a URL such as https://api.openai.com/v1"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "start it with https:// and a host, such as https://api.openai.com/v1"
    if any(character <= " " or character == "\x7f" or character == "\\" for character in url):
        return "it holds white space, a backslash or a control character"
    if "@" in parts.netloc:
        return "it must not hold a user name or password; add a credential instead"
    if azure := _azure_problem(parts):
        return azure
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return "leave out everything from ? or # on"
    if port == 0:
        return "port 0 cannot be called"
    if parts.scheme == "http" and not allow_private:
        return "plain http is only for private networks (allow them on the provider); use https"
    return host_refusal(parts.hostname, allow_private=allow_private)


def origin_of(url: str) -> str:
    """Where a URL leads, as RFC 6454 has it: scheme, host and port, such as ``https://api.openai.com``; "" for no such URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


_PORTS = {"http": 80, "https": 443}

#: Where Azure's resources answer with OpenAI's API.
_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com")


def _azure_problem(parts: SplitResult) -> str | None:
    """Azure has two APIs. The older one names a deployment in the path and a date in the query; what is spoken here is the other,
    which is OpenAI's own and needs neither (Microsoft, "Azure OpenAI v1 API")."""
    host = (parts.hostname or "").lower()
    azure = host.endswith(_AZURE)
    older = "/openai/deployments" in parts.path or "api-version" in parts.query.lower()
    if not older and (not azure or parts.path.rstrip("/") == "/openai/v1"):
        return None
    name = host if azure else "NAME.openai.azure.com"
    why = (
        "this is the address of a deployment in Azure's older API, with api-version"
        if older
        else "Azure's address ends with /openai/v1"
    )
    return f"{why}: enter https://{name}/openai/v1, and the name of the deployment as the model's name at the provider"


def proxy_problem(url: str) -> str | None:
    """What is wrong with a proxy's address, or None. A proxy may be on a private network."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "this is not a URL such as http://proxy.example.com:3128"
    if parts.scheme != "http" or not parts.hostname:
        return "write it as http://host:port"
    if "@" in parts.netloc:
        return "it must not hold a user name or password, since it is stored and shown in the clear"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return "leave out everything after the port"
    return host_refusal(parts.hostname, allow_private=True)


def reads_keys(base_url: str, proxy_url: str) -> bool:
    """Whether a proxy sees what is sent through it: over TLS it is asked for a tunnel, over plain http for the request itself."""
    return bool(proxy_url) and urlsplit(base_url).scheme == "http"


#: A key is refused for good when a process has met so many refusals in a row, or so many processes one each.
REFUSALS_OF_A_BURST, PROCESSES_OF_A_BURST = 3, 2


def refused_for_good(heard: Iterable[tuple[object, str]]) -> bool:
    """Whether what data planes heard of a key, as (process, ``refused`` or ``accepted``) in the order in which it happened, is
    a burst: not one refusal that the provider then took back. A process tells of its first refusal and of the one that makes
    a burst.
    """
    in_a_row: dict[object, int] = {}
    for process, said in heard:
        if said == "accepted":
            in_a_row.pop(process, None)
        else:
            in_a_row[process] = in_a_row.get(process, 0) + 1
    return len(in_a_row) >= PROCESSES_OF_A_BURST or any(times >= 2 for times in in_a_row.values())


def still_refused(heard: Iterable[tuple[object, str]]) -> bool:
    """Whether the last word that some data plane heard of a key was a refusal."""
    last = dict(heard)
    return any(said != "accepted" for said in last.values())


_NUMBERED = re.compile(r"(.*?)[ -](\d{1,4})")


def next_name(name: str, taken: Collection[str]) -> str:
    """A free name for the key that follows ``name``: ``primary`` is followed by ``primary-2``, that by ``primary-3``."""
    found = _NUMBERED.fullmatch(name)
    stem, number = (found.group(1), int(found.group(2))) if found else (name, 1)
    while True:
        number += 1
        ending = f"-{number}"
        one = stem[: 80 - len(ending)] + ending
        if one not in taken:
            return one


def may_activate(state: str, *, probed: bool, unprobed_reason: str) -> str | None:
    """Why a credential cannot become active yet, or None. One that never answered needs a reason on the record."""
    if state == "staged" and not probed and not unprobed_reason.strip():
        return "This key was never seen working. Probe it first, or say why it is to be used unprobed."
    return None


#: Members of a request that the console decides itself, or that change what a call costs: never defaults of a model.
RESERVED_PARAMETERS = frozenset(
    {
        "model", "messages", "input", "prompt", "instructions", "stream", "stream_options", "n", "best_of",
        "max_tokens", "max_completion_tokens", "max_output_tokens", "store", "user", "metadata", "tools",
        "tool_choice", "functions", "function_call", "service_tier", "prediction", "background",
        "safety_identifier", "extra_headers", "extra_body", "extra_query", "timeout",
    }
)  # fmt: skip
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MOST_PARAMETER_BYTES = 8_192


def parameters_problem(parameters: object) -> str | None:
    """What is wrong with a model's request defaults, or None."""
    if not isinstance(parameters, dict):
        return 'give an object such as {"temperature": 0}'
    for name in parameters:
        if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
            return f"{str(name)[:40]!r} is not the name of a request member"
        if name in RESERVED_PARAMETERS:
            return f"{name} is decided for each call and cannot be a default"
        if SECRET_FIELDS.search(name):
            return f"{name} looks like a secret; keys belong to credentials"
    try:
        size = len(canonical_json(parameters))
    except (ValueError, TypeError, RecursionError):
        return "JSON cannot hold one of the values"
    if size > _MOST_PARAMETER_BYTES:
        return f"at most {_MOST_PARAMETER_BYTES} bytes are kept"
    return text_problem(parameters)
