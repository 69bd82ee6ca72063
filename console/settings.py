"""Settings of both planes, from the environment only.

Every value has its name in ``docs/operations.md``. In the embedded default (no ``DATABASE_URL``) keys that are missing
are made once and kept in ``<data dir>/keys.env`` (mode 0600) by ``console.embedded``; with PostgreSQL they must be given.
"""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from console.environment import Environment
from console.sessions import session_options
from llmops.core import memory

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()

DATA_DIR = Path(env.str("CONSOLE_DATA_DIR", default=str(BASE_DIR / "var"))).absolute()
_kept_keys = DATA_DIR / "keys.env"
#: Where the master keys stand; None: in the environment.
MASTER_KEYS_FILE: Path | None = None
if "CONSOLE_MASTER_KEYS" not in os.environ and (_kept_keys.is_file() or not os.environ.get("DATABASE_URL")):
    MASTER_KEYS_FILE = _kept_keys
if _kept_keys.is_file():
    environ.Env.read_env(str(_kept_keys))

DEBUG = env.bool("CONSOLE_DEBUG", default=False)
# Empty values are refused by console.checks with a hint; importing settings must not fail half way.
SECRET_KEY = env.str("CONSOLE_SECRET_KEY", default="")
MASTER_KEYS = env.str("CONSOLE_MASTER_KEYS", default="")
ALLOWED_HOSTS = env.list("CONSOLE_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CONSOLE_TRUSTED_ORIGINS", default=[])

#: What only a process that serves pages or the API needs. Data planes, ingesters and workers leave it out
#: (``CONSOLE_BACKGROUND``), which saves each of them some 30 MB.
BACKGROUND = env.bool("CONSOLE_BACKGROUND", default=False)
_SURFACES = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "console.apps.ConsoleAdminConfig",
]
INSTALLED_APPS = [
    "llmops.base",
    "llmops.audit",
    "llmops.access",
    "llmops.approvals",
    "llmops.providers",
    "llmops.policies",
    "llmops.prompts",
    "llmops.tools",
    "llmops.budgets",
    "llmops.usage",
    "llmops.serving",
    "llmops.evals",
    "llmops.alerts",
    "llmops.runs",
    "llmops.readiness",
    "llmops.gateway",
    "llmops.dashboards",
    "llmops.playground",
    "console.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "axes",
    *([] if BACKGROUND else _SURFACES),
]

MIDDLEWARE = [
    "console.middleware.HandBackConnectionMiddleware",
    "console.middleware.RequestIdMiddleware",
    "console.hardening.NoNulMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "console.static_files.StaticFilesMiddleware",
    "console.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "llmops.access.second_factor.SecondFactorMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

if BACKGROUND:
    MIDDLEWARE = []
    # "The middleware of axes is missing": there is no request that it could watch.
    SILENCED_SYSTEM_CHECKS = ["axes.W002"]
ROOT_URLCONF = "console.no_urls" if BACKGROUND else "console.urls"
ASGI_APPLICATION = "console.asgi.application"
_PAGES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
# Whoever serves no pages renders none, and need not look through every app for what templates may load.
TEMPLATES = [] if BACKGROUND else _PAGES


def _database() -> dict[str, Any]:
    url = env.str("DATABASE_URL", default="") or f"sqlite:///{DATA_DIR / 'console.sqlite3'}"
    config: dict[str, Any] = env.db_url_config(url)
    if config.get("ENGINE") == "django.db.backends.sqlite3":
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # recursive_triggers: without it REPLACE would remove rows past the triggers of append-only tables.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
            "PRAGMA recursive_triggers=ON;",
        }
        return config
    if config.get("ENGINE") != "django.db.backends.postgresql":
        raise ImproperlyConfigured(
            "DATABASE_URL must name PostgreSQL (postgres://...) or SQLite (sqlite:///path)."
        )
    options = dict(config.get("OPTIONS") or {})
    options["pool"] = {
        "min_size": 1,
        "max_size": env.int("CONSOLE_DB_POOL_SIZE", default=10),
        "timeout": env.int("CONSOLE_DB_POOL_TIMEOUT", default=10),
    }
    options.setdefault("connect_timeout", 5)
    options["options"] = session_options(
        options.get("options", ""),
        idle_s=env.float("CONSOLE_DB_IDLE_TRANSACTION_SECONDS", default=60.0),
        statement_s=env.float("CONSOLE_DB_STATEMENT_SECONDS", default=0.0),
    )
    if not options["options"]:
        # A pooler in between may refuse even an empty one.
        del options["options"]
    config.update({"OPTIONS": options, "CONN_MAX_AGE": 0})
    return config


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
JOURNAL_DIR = Path(env.str("CONSOLE_JOURNAL_DIR", default=str(DATA_DIR / "journal"))).absolute()
#: The only directories from which ``file:`` references of provider keys are read.
SECRET_FILE_DIRS = env.list("CONSOLE_SECRET_DIRS", default=["/run/secrets", str(DATA_DIR / "secrets")])
#: HashiCorp Vault, for ``vault:`` references: who the console is there, and the only paths that references may name.
VAULT_ADDR = env.str("CONSOLE_VAULT_ADDR", default="")
VAULT_TOKEN = env.str("CONSOLE_VAULT_TOKEN", default="")
VAULT_TOKEN_FILE = env.str("CONSOLE_VAULT_TOKEN_FILE", default="")
VAULT_NAMESPACE = env.str("CONSOLE_VAULT_NAMESPACE", default="")
VAULT_CA_FILE = env.str("CONSOLE_VAULT_CA_FILE", default="")
VAULT_PATHS = env.list("CONSOLE_VAULT_PATHS", default=["secret/data/llmops/", "kv/data/llmops/"])
#: AWS Secrets Manager, for ``aws:`` references: the beginnings of the names that references may have.
AWS_REGION = env.str("CONSOLE_AWS_REGION", default=env.str("AWS_REGION", default=""))
AWS_ENDPOINT = env.str("CONSOLE_AWS_ENDPOINT", default="")
AWS_NAMES = env.list("CONSOLE_AWS_NAMES", default=["llmops/"])
#: A provider key is due to be rotated so many days after it was set, unless it says otherwise; 0: never.
#: What test calls of models that are not published yet may cost in 24 hours, nanodollars.
MODEL_TRIALS_NANO_A_DAY = int(env("CONSOLE_MODEL_TRIALS_USD", cast=Decimal, default=Decimal(1)) * 10**9)
PROVIDER_KEY_DAYS = env.int("CONSOLE_PROVIDER_KEY_DAYS", default=90)
TOKENIZER_DIR = Path(env.str("CONSOLE_TOKENIZER_DIR", default=str(DATA_DIR / "tiktoken"))).absolute()
#: How long a data plane may go on spending leased money without having reached the database, in seconds.
LEASE_SECONDS = env.int("CONSOLE_LEASE_SECONDS", default=3600)
#: Calls older than this are removed by the retention job; rollups stay.
CALL_RETENTION_DAYS = env.int("CONSOLE_CALL_RETENTION_DAYS", default=90)
#: Rollups by minute are kept for so many days (0: for ever); those by hour and day stay.
MINUTE_ROLLUP_DAYS = env.int("CONSOLE_MINUTE_ROLLUP_DAYS", default=7)
#: Where a data plane keeps forms (sounds, images) that are too large for memory while it passes them on.
SPOOL_DIR = Path(env.str("CONSOLE_SPOOL_DIR", default=str(DATA_DIR / "spool"))).absolute()
#: The largest form the data plane reads, in bytes.
MAX_MEDIA_BYTES = env.int("CONSOLE_MAX_MEDIA_BYTES", default=200 * 1024 * 1024)
#: Whose a response or a stored chat is, is known for so long; providers remove them by themselves after about a month.
OBJECT_RETENTION_DAYS = env.int("CONSOLE_OBJECT_RETENTION_DAYS", default=35)
#: The largest request body the data plane reads, in bytes.
MAX_REQUEST_BYTES = env.int("CONSOLE_MAX_REQUEST_BYTES", default=32 * 1024 * 1024)
#: The largest file that the data plane passes on to a provider, in bytes. It is never held in memory.
MAX_UPLOAD_BYTES = env.int("CONSOLE_MAX_UPLOAD_BYTES", default=512 * 1024 * 1024)
#: What one data plane keeps of the bodies of calls under way, in bytes: in memory, and in files of ``SPOOL_DIR``. A key alone may
#: have half of it.
BODY_BYTES = env.int("CONSOLE_BODY_BYTES", default=max(memory.most() // 8, 8 * MAX_REQUEST_BYTES))
SPOOL_BYTES = env.int("CONSOLE_SPOOL_BYTES", default=8 * max(MAX_UPLOAD_BYTES, MAX_MEDIA_BYTES))
#: Answers that one data plane keeps in memory for routes with a response cache, in bytes.
CACHE_BYTES = env.int("CONSOLE_CACHE_BYTES", default=64 * 1024 * 1024)
#: Answers to requests with an ``Idempotency-Key`` are kept for so many seconds, and at most so many bytes of them: in Redis where
#: there is one, else in this directory, for all data planes of the host.
IDEMPOTENCY_SECONDS = env.int("CONSOLE_IDEMPOTENCY_SECONDS", default=86_400)
IDEMPOTENCY_BYTES = env.int("CONSOLE_IDEMPOTENCY_BYTES", default=256 * 1024 * 1024)
IDEMPOTENCY_DIR = Path(env.str("CONSOLE_IDEMPOTENCY_DIR", default=str(DATA_DIR / "idempotency"))).absolute()
#: Whether data planes log a line for every call; the journal and the database have every call in any case.
LOG_CALLS = env.bool("CONSOLE_LOG_CALLS", default=False)
#: How long calls under way may take to end when a data plane is asked to stop, in seconds.
DRAIN_SECONDS = env.float("CONSOLE_DRAIN_SECONDS", default=7.0)
#: Where the console itself reaches a data plane, for the playground; in one process with it: that process.
GATEWAY_URL = env.str(
    "CONSOLE_GATEWAY_URL",
    default=env.str("CONSOLE_PUBLIC_GATEWAY_URL", default="")
    or f"http://127.0.0.1:{env.str('PORT', default='8000')}/v1",
)
#: What was asked and answered in the playground is kept for so many hours, setups that somebody shared for so many days.
PLAYGROUND_RUN_HOURS = env.int("CONSOLE_PLAYGROUND_RUN_HOURS", default=24)
PLAYGROUND_SETUP_DAYS = env.int("CONSOLE_PLAYGROUND_SETUP_DAYS", default=30)
#: Runs of one person within a minute, and after how many seconds a run is cancelled that no page shows any more.
PLAYGROUND_RUNS_PER_MINUTE = env.int("CONSOLE_PLAYGROUND_RUNS_PER_MINUTE", default=30)
PLAYGROUND_UNWATCHED_SECONDS = env.int("CONSOLE_PLAYGROUND_UNWATCHED_SECONDS", default=60)
#: Whoever works on a run and is not heard of for so many seconds is followed by another.
RUN_LEASE_SECONDS = env.float("CONSOLE_RUN_LEASE_SECONDS", default=15.0)
#: What was asked, said and answered in a run is kept for so many days after its end (0: for ever); that it was stays.
RUN_TEXT_DAYS = env.int("CONSOLE_RUN_TEXT_DAYS", default=90)
#: Whether services may have the end of their runs told to addresses of private networks, and over plain http.
RUN_WEBHOOKS_PRIVATE = env.bool("CONSOLE_RUN_WEBHOOKS_PRIVATE", default=False)
#: What is told of an action's end, with the run that the action names.
ACTION_ENDED = "llmops.runs.services.waking.action_ended"
#: The largest body that the console's own API reads, in bytes.
MAX_API_BYTES = env.int("CONSOLE_MAX_API_BYTES", default=8 * 1024 * 1024)

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
#: Who may do what, what happened to an object, which routes and policies there are: rooms that may not import the answer
#: ask by these names.
AUTHORITY = "llmops.access.selectors"
OBJECT_HISTORY = "llmops.audit.selectors.object_history"
TRAIL_PAGE = "dashboards:audit"
ACTORS_NAMED = "llmops.dashboards.trail.query.actors_named"
ROUTE_EXISTS = "llmops.providers.selectors.route_exists"
PRICE_PREVIEW = "llmops.usage.repricing.preview"
TRY_ON_CALLS = "llmops.usage.trying.try_on_calls"
ROUTE_WHATIF = "llmops.gateway.whatif.whatif"
ROUTES_NAMING_POLICY = "llmops.providers.selectors.routes_naming_policy"
LIVE_PROMPTS = "llmops.serving.selectors.live_prompts"
POLICY_NAMES = "llmops.policies.selectors.policy_names"
MISSING_POLICIES = "llmops.policies.selectors.missing_policies"
WORK_ON_CREDENTIAL = "llmops.usage.selectors.work.work_on_credential"
DATA_PLANES = "llmops.usage.selectors.work.open_data_planes"
#: The columns in which values are sealed under master keys, so that they can be sealed anew (llmops.base.sealed).
SEALED = [
    "llmops.providers.sealed.CREDENTIALS",
    "llmops.access.sealed.SECOND_FACTORS",
    "llmops.tools.sealed.WEBHOOK_SECRETS",
    "llmops.playground.sealed.PROJECT_KEYS",
    "llmops.playground.sealed.PIECES",
    "llmops.playground.sealed.SETUPS",
    "llmops.runs.sealed.PROJECT_KEYS",
    "llmops.runs.sealed.ASKED",
    "llmops.runs.sealed.ANSWERS",
    "llmops.runs.sealed.SAYINGS",
    "llmops.runs.sealed.STEPS",
    "llmops.usage.sealed.KEPT_TEXTS",
    "llmops.usage.sealed.KEPT_ANSWERS",
    "llmops.evals.sealed.EXPECTED",
    "llmops.evals.sealed.CASE_TEXTS",
    "llmops.alerts.sealed.CHANNEL_SECRETS",
]
#: What to do when something is wrong, a file a signal: shown beside each alert.
RUNBOOK_DIR = BASE_DIR / "docs" / "runbooks"
OPERATIONS_PAGE = BASE_DIR / "docs" / "operations.md"
#: Acts that take a second person, by name, and the room that carries each out.
APPROVAL_KINDS = {
    "budget.raise": "llmops.budgets.services.raises.KIND",
    "budget.loosen": "llmops.budgets.services.loosening.KIND",
    "revision.publish": "llmops.serving.services.proposing.KIND",
    "publishing.loosen": "llmops.serving.services.rule.KIND",
    "tool.action": "llmops.tools.services.approving.KIND",
}
#: How those who may decide are told of what waits: each takes (requests, project's slug or "").
APPROVAL_CHANNELS = {
    "mail": "llmops.approvals.telling.by_mail",
    "webhook": "llmops.tools.telling.by_webhook",
}
#: Where a message goes for each batch of requests that wait (Slack-compatible JSON); empty: nowhere.
APPROVALS_WEBHOOK = env.str("CONSOLE_APPROVALS_WEBHOOK", default="")
APPROVALS_WEBHOOK_PRIVATE = env.bool("CONSOLE_APPROVALS_WEBHOOK_PRIVATE", default=False)
#: Python functions that tools may run, by name: ``name=dotted.path`` with commas between.
TOOL_FUNCTIONS = {
    "echo": "llmops.tools.functions.echo",
    **env.dict("CONSOLE_TOOL_FUNCTIONS", default={}),
}
#: The Celery application, for those who send tasks (llmops.base.tasks).
TASK_APP = "console.celery.app"
#: Addresses or networks whose X-Forwarded-For is believed; "unix" for a proxy on a Unix socket.
TRUSTED_PROXIES = env.list("CONSOLE_TRUSTED_PROXIES", default=[])
AXES_CLIENT_IP_CALLABLE = "llmops.access.sign_in_guard.caller_address"
AXES_HANDLER = "llmops.access.sign_in_guard.SignInGuard"
# Unlocking goes through a service, so that it is on the record.
AXES_ENABLE_ADMIN = False
AXES_FAILURE_LIMIT = 8
#: Failures of all names together from one address in AXES_COOLOFF_TIME, after which nobody signs in from there.
SIGN_IN_ADDRESS_LIMIT = env.int("CONSOLE_SIGN_IN_ADDRESS_LIMIT", default=60)
#: Failures of one name from all addresses in that time, after which only addresses its person is signed in from may try.
SIGN_IN_NAME_LIMIT = env.int("CONSOLE_SIGN_IN_NAME_LIMIT", default=100)
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
# Attempts during the pause neither prolong it nor are written down again; sessions are on the audit trail.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
#: Who must have a second factor: ``all``, or roles (held anywhere; superusers count as ``admin``).
SECOND_FACTOR_REQUIRED = env.list("CONSOLE_SECOND_FACTOR_REQUIRED", default=[])
#: Passkeys: where the console is open to them (the first one's host is their domain, unless that is named), and whether the
#: authenticator must know its person (``preferred``, ``required`` or ``discouraged``). Without one: on localhost only.
PASSKEY_ORIGINS = env.list("CONSOLE_PASSKEY_ORIGINS", default=[])
PASSKEY_DOMAIN = env.str("CONSOLE_PASSKEY_DOMAIN", default="")
PASSKEY_VERIFICATION = env.str("CONSOLE_PASSKEY_VERIFICATION", default="preferred")
#: Sign-in with OpenID Connect (llmops.access.oidc); off without an issuer and a client.
OIDC_ISSUER = env.str("CONSOLE_OIDC_ISSUER", default="")
OIDC_CLIENT_ID = env.str("CONSOLE_OIDC_CLIENT_ID", default="")
OIDC_CLIENT_SECRET = env.str("CONSOLE_OIDC_CLIENT_SECRET", default="")
OIDC_SCOPES = env.list("CONSOLE_OIDC_SCOPES", default=["email", "profile"])
OIDC_LABEL = env.str("CONSOLE_OIDC_LABEL", default="Sign in with your organisation")
OIDC_USERNAME_CLAIM = env.str("CONSOLE_OIDC_USERNAME_CLAIM", default="preferred_username")
OIDC_ROLES_CLAIM = env.str("CONSOLE_OIDC_ROLES_CLAIM", default="groups")
OIDC_ROLES = env.str("CONSOLE_OIDC_ROLES", default="")
#: Whether such a sign-in counts as one with a second factor: the provider asks for it.
OIDC_IS_STRONG = env.bool("CONSOLE_OIDC_IS_STRONG", default=True)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "dashboards:overview"

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_TLS = env.bool("CONSOLE_TLS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_TLS
SECURE_HSTS_SECONDS = 31_536_000 if SECURE_TLS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SECURE_TLS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

LANGUAGE_CODE = "en"
# There is one language; looking for another in each label takes a thirtieth of a page.
USE_I18N = False
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["console.formats"]
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = Path(env.str("CONSOLE_STATIC_ROOT", default=str(DATA_DIR / "static"))).absolute()
STATICFILES_DIRS = [BASE_DIR / "static"]
# Without a collectstatic (the embedded default) files are served from where they lie.
if not BACKGROUND and not STATIC_ROOT.exists():
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "llmops.access.authentication.ServiceKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["llmops.access.permissions.DeniesUnlessDeclared"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["llmops.base.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "llmops.base.drf.render_error",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "LLMOps Console API",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # A name of these would otherwise be made of a digest.
    "ENUM_NAME_OVERRIDES": {
        "RunStateEnum": "llmops.runs.models.Run.STATES",
        "RoleEnum": "llmops.access.rules.ROLES",
    },
}

from console.settings_celery import *  # noqa: E402, F403
from console.settings_logging import *  # noqa: E402, F403
from console.settings_look import *  # noqa: E402, F403
from console.settings_mail import *  # noqa: E402, F403
