"""Bad settings are a sentence that names the variable, before anything starts (invariant 11)."""

from __future__ import annotations

import base64
import os
import sys

import pytest

from tests import launcher

GOOD = {
    "CONSOLE_SECRET_KEY": "x" * 50,
    "CONSOLE_MASTER_KEYS": f"k:{base64.b64encode(b'k' * 32).decode()}",
}


COMMAND = ["manage.py", "check"]
#: The same without the apps of pages, which no setting here depends on and which take longest to load.
QUICKER = "import sys, manage; manage.ABOUT_EVERY_APP = frozenset(); sys.argv = ['manage.py', 'check']; manage.main()"


def check(tmp_path, *command, anew=True, **changed):
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CONSOLE_", "DATABASE_", "REDIS_"))
    }
    environment |= {**GOOD, "CONSOLE_DATA_DIR": str(tmp_path), **changed}
    return launcher.run([sys.executable, *command], env=environment, anew=anew)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"CONSOLE_SECRET_KEY": ""}, "console.E001"),
        ({"CONSOLE_SECRET_KEY": "short"}, "CONSOLE_SECRET_KEY is missing or shorter"),
        ({"CONSOLE_MASTER_KEYS": ""}, "console.E002"),
        ({"CONSOLE_MASTER_KEYS": "k:AAAA"}, "'k' has 3 bytes"),
        ({"CONSOLE_TRUSTED_PROXIES": "10.0.0.0/99"}, "console.E003"),
        ({"CONSOLE_SECOND_FACTOR_REQUIRED": "admin,chief"}, "console.E005"),
        ({"CONSOLE_OIDC_ISSUER": "https://idp.example.com"}, "console.E006"),
        ({"CONSOLE_PASSKEY_ORIGINS": "http://console.example.com"}, "console.E008"),
        ({"CONSOLE_LEASE_SECONDS": "1"}, "CONSOLE_LEASE_SECONDS is 1; it must be at least 10"),
        (
            {"CONSOLE_LEASE_SECONDS": "an hour"},
            "CONSOLE_LEASE_SECONDS is 'an hour'; it must be a whole number",
        ),
        ({"CONSOLE_CALL_RETENTION_DAYS": "-1"}, "console.E004"),
        ({"CONSOLE_GATEWAY_URL": "gateway:8000"}, "console.E009"),
        ({"CONSOLE_GATEWAY_URL": "http://gateway:port/v1"}, "console.E009"),
        ({"CONSOLE_TLS": "perhaps"}, "CONSOLE_TLS is 'perhaps'; it must be true or false"),
        ({"DATABASE_URL": "mysql://u@h/d"}, "DATABASE_URL must name PostgreSQL"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL must name PostgreSQL"),
    ],
)
def test_a_bad_setting_is_refused_with_a_sentence(tmp_path, changed, said):
    refused(check(tmp_path, "-c", QUICKER, CONSOLE_BACKGROUND="1", anew=False, **changed), said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"CONSOLE_SECRET_KEY": "short"}, "console.E001"), ({"CONSOLE_TLS": "perhaps"}, "'perhaps'")],
)
def test_the_command_refuses_them(tmp_path, changed, said):
    refused(check(tmp_path, *COMMAND, **changed), said)


def test_another_command_says_it_without_what_django_says_around_it(tmp_path):
    command = QUICKER.replace("'check'", "'showmigrations'")
    run = check(tmp_path, "-c", command, CONSOLE_BACKGROUND="1", anew=False, CONSOLE_SECRET_KEY="short")
    refused(run, "Refused: CONSOLE_SECRET_KEY is missing or shorter than 32 characters. Set it to")
    assert len(run.stderr.splitlines()) == 1


def refused(run, said):
    assert run.returncode != 0
    assert said in run.stderr + run.stdout
    assert "Traceback" not in run.stderr


def test_good_settings_pass(tmp_path):
    run = check(tmp_path, *COMMAND, CONSOLE_TRUSTED_PROXIES="10.0.0.0/8,unix", CONSOLE_TLS="true")
    assert run.returncode == 0, run.stderr
