"""``aws:NAME[#FIELD]``: a secret in AWS Secrets Manager, by name or ARN; FIELD where the secret is a JSON object.

Only names below ``CONSOLE_AWS_NAMES`` are read. The console is whoever its host is to AWS: keys of the environment, or the
credentials of its container (ECS task role, EKS pod identity). AWS Secrets Manager API Reference, "GetSecretValue".
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from llmops.core.errors import InvalidRequest
from llmops.providers import secret_stores
from llmops.providers.secret_stores.asking import ask
from llmops.providers.secret_stores.sigv4 import Identity, signed

_NAME = r"[A-Za-z0-9/_+=.@-]{1,240}"
_REFERENCE = re.compile(
    rf"(?:arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]{{1,30}}):\d{{12}}:secret:)?(?P<name>{_NAME})"
    r"(?:#(?P<field>[A-Za-z0-9_.-]{1,100}))?"
)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
#: Hosts that hand out a container's credentials: ECS, EKS pod identity, an agent on the loopback.
_CONTAINER_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "127.0.0.1", "localhost")
_AWAY = ("InternalServiceError", "InternalServiceErrorException", "ThrottlingException", "ServiceUnavailable")


def check(reference: str) -> None:
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise InvalidRequest(
            "reference: after aws: comes the name or ARN of a secret, such as llmops/openai, and #field where it holds JSON.",
            param="reference",
        )
    if not any(found["name"].startswith(prefix) for prefix in settings.AWS_NAMES if prefix):
        raise InvalidRequest(
            f"reference: provider keys are secrets whose name begins with {', '.join(settings.AWS_NAMES) or 'nothing'}. "
            "CONSOLE_AWS_NAMES names others.",
            param="reference",
        )


def read(reference: str) -> str:
    found = _REFERENCE.fullmatch(reference)
    assert found is not None, "checked before it is read"
    secret_id, _, field = reference.partition("#")
    region = found["region"] or settings.AWS_REGION
    if not _REGION.fullmatch(region):
        raise secret_stores.SecretUnavailable(
            "This process does not know the AWS region: set CONSOLE_AWS_REGION, such as eu-central-1, or refer to the secret "
            "by its ARN."
        )
    suffix = ".com.cn" if region.startswith("cn-") else ".com"
    endpoint = settings.AWS_ENDPOINT.rstrip("/") or f"https://secretsmanager.{region}.amazonaws{suffix}"
    body = json.dumps({"SecretId": secret_id}).encode()
    headers = signed(
        identity(),
        method="POST",
        host=urlsplit(endpoint).netloc,
        region=region,
        service="secretsmanager",
        headers={
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "secretsmanager.GetSecretValue",
        },
        body=body,
        at=datetime.now(UTC),
    )
    status, answer = ask("AWS Secrets Manager", "POST", f"{endpoint}/", headers=headers, body=body)
    said = _json(answer)
    if status != 200:
        raise _refusal(status, str(said.get("__type", "")).rpartition("#")[2], secret_id)
    text = said.get("SecretString")
    if not isinstance(text, str):
        raise secret_stores.SecretUnavailable(f"The secret {secret_id} in AWS holds no text.")
    if not field:
        return text
    value = _json(text.encode()).get(field)
    if not isinstance(value, str):
        raise secret_stores.SecretUnavailable(
            f"The secret {secret_id} in AWS has no field {field!r} that is a text."
        )
    return value


def identity() -> Identity:
    """Who this process is to AWS. Raises ``SecretUnavailable`` saying where that is looked for."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if access and secret:
        return Identity(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
    relative = os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
    url = (
        f"http://169.254.170.2{relative}"
        if relative
        else os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    )
    if not url:
        raise secret_stores.SecretUnavailable(
            "This process has no identity at AWS: give it a task role (ECS) or a pod identity (EKS), or set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY."
        )
    if urlsplit(url).hostname not in _CONTAINER_HOSTS:
        raise secret_stores.SecretUnavailable(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI names a host that is not one of a container's credentials."
        )
    status, answer = ask(
        "The container's credentials", "GET", url, headers=_container_headers(), own_host=True
    )
    said = _json(answer)
    try:
        return Identity(said["AccessKeyId"], said["SecretAccessKey"], said.get("Token", ""))
    except KeyError:
        raise secret_stores.StoreAway(f"The container's credentials could not be had ({status}).") from None


def _container_headers() -> dict[str, str]:
    token = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""):
        try:
            token = Path(file).read_text().strip()
        except OSError as error:
            raise secret_stores.SecretUnavailable(
                f"The file of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read: {error.strerror}."
            ) from None
    return {"Authorization": token} if token else {}


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(status: int, kind: str, secret_id: str) -> secret_stores.SecretUnavailable:
    if status >= 500 or status == 429 or kind in _AWAY:
        return secret_stores.StoreAway(f"AWS Secrets Manager answered {status}.")
    if kind == "ResourceNotFoundException":
        return secret_stores.SecretUnavailable(
            f"AWS has no secret {secret_id} in this region, or none that may be seen."
        )
    if kind in ("AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"):
        return secret_stores.SecretUnavailable(
            f"AWS refused to show {secret_id}: the console's identity there lacks secretsmanager:GetSecretValue on it (or "
            "kms:Decrypt for its key), or has run out."
        )
    # A kind is a name of AWS's own, never a value.
    named = f" ({kind})" if re.fullmatch(r"[A-Za-z]{1,60}", kind) else ""
    return secret_stores.SecretUnavailable(f"AWS Secrets Manager answered {secret_id} with {status}{named}.")
