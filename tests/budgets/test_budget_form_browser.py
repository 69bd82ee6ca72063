"""The form of a budget as a person meets it, with its script and where that does not arrive."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

from types import SimpleNamespace

import pytest
from playwright.sync_api import Page, expect

from llmops.budgets.models import Budget
from tests.browser_in_process import HERE, InProcessBrowser, browser  # noqa: F401
from tests.cast import signed_in

pytestmark = [pytest.mark.any_engine]
ADD = f"{HERE}/admin/budgets/budget/add/"


@pytest.mark.parametrize("script", [True, False])
def test_a_project_is_all_that_a_projects_budget_asks_for(
    cast: SimpleNamespace, browser: InProcessBrowser, script: bool
) -> None:
    shown = {
        "organisation": (False, False), "project": (False, True), "key": (True, False), "feature": (True, True),
    }  # fmt: skip

    def job(page: Page) -> None:
        if not script:
            page.route("**/budget-form*.js", lambda route: route.abort())
        page.goto(ADD)
        scope, value, project = (
            page.locator(f"#id_{name}") for name in ("scope_kind", "scope_value", "project")
        )
        for kind, fields in shown.items():
            scope.select_option(kind)
            for field, is_shown in zip((value, project), fields, strict=True):
                expect(field).to_be_visible(visible=is_shown or not script)
        value.fill("typed for a feature")
        if not script:
            value.fill("")
        scope.select_option("project")
        project.select_option(label="Support assistant")
        page.fill("#id_slug", "chosen")
        page.fill("#id_limit_usd", "5")
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url("**/admin/budgets/budget/")

    browser.visit(signed_in(cast.alice), job)
    made = Budget.objects.get(slug="chosen")
    assert (made.scope_value, made.project) == ("support", cast.support)
