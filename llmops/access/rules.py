"""Who may do what: the one table that admin, API and dashboards read.

A role is held in one project, or in the whole organisation (a membership without a project). A superuser holds every
role everywhere. Service keys carry scopes instead of roles; ``SCOPE_PERMISSIONS`` says what each scope may do.
"""

from __future__ import annotations

from collections.abc import Iterable

OPERATOR, REVIEWER, FINANCE, AUDITOR, ADMIN = "operator", "reviewer", "finance", "auditor", "admin"
ROLES = (OPERATOR, REVIEWER, FINANCE, AUDITOR, ADMIN)

#: Who waits first when there is not enough for all calls.
INTERACTIVE, BATCH = "interactive", "batch"
PRIORITIES = [
    (INTERACTIVE, "Interactive: somebody waits for the answer"),
    (BATCH, "Batch: may wait for the others"),
]

#: permission -> roles that hold it
PERMISSIONS: dict[str, frozenset[str]] = {
    "project.view": frozenset(ROLES),
    "project.manage": frozenset({ADMIN}),
    "member.view": frozenset({AUDITOR, ADMIN}),
    "member.manage": frozenset({ADMIN}),
    "service_key.view": frozenset({OPERATOR, AUDITOR, ADMIN}),
    "service_key.manage": frozenset({OPERATOR, ADMIN}),
    "provider.view": frozenset({OPERATOR, AUDITOR, ADMIN}),
    "provider.manage": frozenset({OPERATOR, ADMIN}),
    "model.view": frozenset({OPERATOR, FINANCE, AUDITOR, ADMIN}),
    "model.manage": frozenset({OPERATOR, ADMIN}),
    "price.manage": frozenset({OPERATOR, FINANCE, ADMIN}),
    "route.view": frozenset({OPERATOR, FINANCE, AUDITOR, ADMIN}),
    "route.manage": frozenset({OPERATOR, ADMIN}),
    "policy.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    "policy.manage": frozenset({OPERATOR, ADMIN}),
    "prompt.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    "prompt.manage": frozenset({OPERATOR, ADMIN}),
    "tool.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    "tool.manage": frozenset({OPERATOR, ADMIN}),
    "action.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    #: ask for a call of a tool
    "action.propose": frozenset({OPERATOR, REVIEWER, ADMIN}),
    "action.approve": frozenset({REVIEWER, ADMIN}),
    #: say whether an action of unknown outcome happened
    "action.resolve": frozenset({REVIEWER, ADMIN}),
    "run.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    #: start and cancel runs, which the project pays
    "run.start": frozenset({OPERATOR, ADMIN}),
    #: try prompts and models with real calls, which the project pays
    "playground.use": frozenset({OPERATOR, ADMIN}),
    "revision.view": frozenset({OPERATOR, AUDITOR, ADMIN}),
    "revision.publish": frozenset({OPERATOR, ADMIN}),
    #: say yes to what somebody else would make live
    "revision.approve": frozenset({OPERATOR, REVIEWER, ADMIN}),
    "budget.view": frozenset({OPERATOR, FINANCE, AUDITOR, ADMIN}),
    "budget.manage": frozenset({FINANCE, ADMIN}),
    #: ask for a raise, and say yes to somebody else's
    "budget.request": frozenset({OPERATOR, FINANCE, ADMIN}),
    "budget.approve": frozenset({FINANCE, ADMIN}),
    "approval.view": frozenset(ROLES),
    #: open the inbox's forms; what each kind of request asks for beside is its own permission
    "approval.decide": frozenset({OPERATOR, REVIEWER, FINANCE, ADMIN}),
    "usage.view": frozenset({OPERATOR, FINANCE, AUDITOR, ADMIN}),
    #: read what calls said, of projects that have it kept for people
    "text.read": frozenset({OPERATOR, ADMIN}),
    "dataset.view": frozenset({OPERATOR, REVIEWER, AUDITOR, ADMIN}),
    #: make datasets, and put calls into them
    "dataset.manage": frozenset({OPERATOR, ADMIN}),
    "usage.rebuild": frozenset({FINANCE, ADMIN}),
    "alert.view": frozenset({OPERATOR, FINANCE, AUDITOR, ADMIN}),
    #: acknowledge, silence and end incidents
    "alert.respond": frozenset({OPERATOR, ADMIN}),
    #: say what is watched, and who is told
    "alert.manage": frozenset({OPERATOR, ADMIN}),
    "outcome.report": frozenset({OPERATOR, ADMIN}),
    "export.manage": frozenset({FINANCE, ADMIN}),
    #: say what a call of unknown outcome cost, or a lost lease
    "usage.correct": frozenset({FINANCE, ADMIN}),
    "audit.view": frozenset({AUDITOR, ADMIN}),
}

#: Permissions whose objects belong to no project: only an organisation-wide role grants the power to change them.
ORGANISATION_WIDE = frozenset(
    {
        "provider.manage",
        "model.manage",
        "price.manage",
        "route.manage",
        "policy.manage",
        "revision.publish",
        "revision.approve",
        "usage.rebuild",
    }
)

#: scope of a service key -> permissions. ``inference`` opens the data plane and lets a service tell what its calls
#: brought; ``metrics`` opens the data plane's figures.
SCOPE_PERMISSIONS: dict[str, frozenset[str]] = {
    "inference": frozenset({"outcome.report"}),
    #: what a data plane counts, at its ``/metrics``: figures of every project
    "metrics": frozenset(),
    "read": frozenset(permission for permission in PERMISSIONS if permission.endswith(".view"))
    - {"audit.view", "member.view"},
    "configure": frozenset(
        {
            "provider.manage",
            "model.manage",
            "price.manage",
            "route.manage",
            "policy.manage",
            "prompt.manage",
            "tool.manage",
            "revision.publish",
            "revision.approve",
            "project.manage",
            "dataset.manage",
            "alert.respond",
            "alert.manage",
        }
    ),
    #: also what ``inference`` allows: nobody gives a key more than he holds
    "keys": frozenset({"service_key.manage", "outcome.report"}),
    #: the two of approvals and that of exports let a key give roles to people; a key itself never decides
    #: (``approvals.services``)
    "budgets": frozenset(
        {
            "budget.manage",
            "budget.request",
            "budget.approve",
            "approval.decide",
            "export.manage",
            "usage.rebuild",
            "usage.correct",
        }
    ),
    "audit": frozenset({"audit.view"}),
    #: read what calls said, and what they were answered
    "texts": frozenset({"usage.view", "text.read"}),
    "members": frozenset({"member.view", "member.manage"}),
    #: propose calls of tools and wait for them. The last three let a key give roles to people; a key itself never decides.
    "actions": frozenset(
        {"action.view", "action.propose", "action.approve", "action.resolve", "approval.decide"}
    ),
    #: start runs, wait for them, and have their models propose calls of tools; ask calls again, beside ``texts``
    "runs": frozenset({"run.view", "run.start", "action.propose", "playground.use"}),
    #: makes the other scopes reach every project instead of the key's own
    "organisation": frozenset(),
}
SCOPES = tuple(SCOPE_PERMISSIONS)
#: Scopes that show or change what belongs to other projects as well.
WIDE_SCOPES = frozenset({"organisation", "metrics"})


def roles_allow(roles: Iterable[str], permission: str) -> bool:
    return not PERMISSIONS[permission].isdisjoint(roles)


def scopes_allow(scopes: Iterable[str], permission: str) -> bool:
    return any(permission in SCOPE_PERMISSIONS.get(scope, ()) for scope in scopes)
