"""The share of answers that did not keep their contract."""

from llmops.alerts.kinds.base import Setting, percent, share, threshold

KIND = threshold(
    name="schema_breakage",
    title="Answers break their contract",
    says="The share of a route's answers that a policy kept back (schema, deny list, refusal), or that could not be read.",
    runbook="schema-breakage",
    bound=Setting("percent", "From", 5, "%", 0.01, 100),
    value=lambda m: share(m.contract_broken, m.contract_broken + m.answered),
    weight=lambda m: m.contract_broken + m.answered,
    what="The share that breaks it",
    show=percent,
)
