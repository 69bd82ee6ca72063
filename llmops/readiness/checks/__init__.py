"""Every check of the installation, in the order in which they are shown. To add one: a file here with a ``CHECK``, a line below,
and a case in ``tests/readiness/cases/``."""

from __future__ import annotations

from importlib import import_module

from llmops.readiness.finding import Check

CHECKS: dict[str, str] = {
    "routes-fall-back": "llmops.readiness.checks.routes_fall_back",
    "routes-at-two-providers": "llmops.readiness.checks.routes_at_two_providers",
    "routes-retry": "llmops.readiness.checks.routes_retry",
    "attempts-reach-fallbacks": "llmops.readiness.checks.attempts_reach_fallbacks",
    "routes-end-in-time": "llmops.readiness.checks.routes_end_in_time",
    "last-resort": "llmops.readiness.checks.last_resort",
    "long-inputs": "llmops.readiness.checks.long_inputs",
    "spare-credentials": "llmops.readiness.checks.spare_credentials",
    "breakers-closed": "llmops.readiness.checks.breakers_closed",
    "outcomes-known": "llmops.readiness.checks.outcomes_known",
    "second-factors": "llmops.readiness.checks.second_factors",
    "second-factor-required": "llmops.readiness.checks.second_factor_required",
    "two-administrators": "llmops.readiness.checks.two_administrators",
    "tls": "llmops.readiness.checks.tls",
    "debug-off": "llmops.readiness.checks.debug_off",
    "hosts-named": "llmops.readiness.checks.hosts_named",
    "provider-keys-young": "llmops.readiness.checks.provider_keys_young",
    "service-keys-expire": "llmops.readiness.checks.service_keys_expire",
    "service-keys-narrow": "llmops.readiness.checks.service_keys_narrow",
    "tools-signed": "llmops.readiness.checks.tools_signed",
    "personal-data-policed": "llmops.readiness.checks.personal_data_policed",
    "injection-policed": "llmops.readiness.checks.injection_policed",
    "publishing-by-two": "llmops.readiness.checks.publishing_by_two",
    "audit-verified": "llmops.readiness.checks.audit_verified",
    "projects-bounded": "llmops.readiness.checks.projects_bounded",
    "organisation-bounded": "llmops.readiness.checks.organisation_bounded",
    "budgets-warn": "llmops.readiness.checks.budgets_warn",
    "models-priced": "llmops.readiness.checks.models_priced",
    "prices-sourced": "llmops.readiness.checks.prices_sourced",
    "keys-limited": "llmops.readiness.checks.keys_limited",
    "output-capped": "llmops.readiness.checks.output_capped",
    "spend-reconciled": "llmops.readiness.checks.spend_reconciled",
    "projects-owned": "llmops.readiness.checks.projects_owned",
    "metrics-scraped": "llmops.readiness.checks.metrics_scraped",
    "logs-structured": "llmops.readiness.checks.logs_structured",
    "calls-logged": "llmops.readiness.checks.calls_logged",
    "mail-leaves": "llmops.readiness.checks.mail_leaves",
    "links-lead-back": "llmops.readiness.checks.links_lead_back",
    "alerts-told": "llmops.readiness.checks.alerts_told",
    "rules-looked-at": "llmops.readiness.checks.rules_looked_at",
    "objectives-set": "llmops.readiness.checks.objectives_set",
    "ledger-follows": "llmops.readiness.checks.ledger_follows",
    "journals-whole": "llmops.readiness.checks.journals_whole",
    "credentials-readable": "llmops.readiness.checks.credentials_readable",
    "limits-shared": "llmops.readiness.checks.limits_shared",
    "database-for-many": "llmops.readiness.checks.database_for_many",
    "models-pinned": "llmops.readiness.checks.models_pinned",
    "models-tried": "llmops.readiness.checks.models_tried",
    "credentials-probed": "llmops.readiness.checks.credentials_probed",
    "rotation-rehearsed": "llmops.readiness.checks.rotation_rehearsed",
    "rollback-rehearsed": "llmops.readiness.checks.rollback_rehearsed",
    "prompts-sampled": "llmops.readiness.checks.prompts_sampled",
    "prompts-labelled": "llmops.readiness.checks.prompts_labelled",
    "policies-triable": "llmops.readiness.checks.policies_triable",
    "outcomes-told": "llmops.readiness.checks.outcomes_told",
}


def every_check() -> list[Check]:
    """Loaded when they are asked for: a process that never looks has none of them."""
    return [import_module(path).CHECK for path in CHECKS.values()]
