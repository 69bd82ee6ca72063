"""Reading what is configured about providers. Secrets are read here and nowhere else."""

from __future__ import annotations

from llmops.base.master_keys import master_keys
from llmops.providers import secret_stores
from llmops.providers.models import Credential


def sealing_identity(credential_id: object) -> str:
    """What a sealed provider key is bound to: its own row, so that a copy in another row does not open."""
    return f"providers.credential:{credential_id}"


def reveal(credential: Credential) -> str:
    """The secret of a credential, for the transport and the probe only.

    Raises ``ConfigurationRefused`` (master key missing or wrong), ``SecretUnavailable`` or ``InvalidRequest`` (the
    reference leads nowhere), each with a sentence that holds no part of the secret.
    """
    if credential.source == "sealed":
        return master_keys().open(credential.sealed, identity=sealing_identity(credential.pk))
    return secret_stores.read_secret(credential.source, credential.reference)
