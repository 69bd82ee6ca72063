"""How the console looks: the Unfold theme and the content security policies.

Two policies, chosen by path in ``console.middleware``:

- the console's own pages (everything but the admin) run under ``CONTENT_SECURITY_POLICY``: scripts, styles, fonts and
  connections from this origin only, nothing inline, no ``eval``. Their base template is ours, so none of Unfold's
  Alpine expressions are in them; a per-request nonce is not needed because nothing is inline. Data goes into pages with
  ``json_script``, which the browser does not execute.
- the admin runs under ``ADMIN_CONTENT_SECURITY_POLICY``. Alpine evaluates its expressions with ``new Function``, which
  takes ``'unsafe-eval'``; Unfold writes its colours into a ``<style>`` and uses ``style`` attributes, which takes
  ``'unsafe-inline'`` for styles. Inline scripts stay forbidden there too. The sign-in page is ours and strict.
- the interactive API reference needs one inline script; ``API_DOCS_CONTENT_SECURITY_POLICY`` allows that, there only.
"""

from __future__ import annotations

from typing import Any

import environ

_env = environ.Env()
NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE = "'none'", "'self'", "'unsafe-eval'", "'unsafe-inline'"

#: Shown in the top bar of every page: "production" is red, "staging" amber, anything else neutral.
ENVIRONMENT_LABEL: str = _env.str(
    "CONSOLE_ENVIRONMENT", default="" if _env.str("DATABASE_URL", default="") else "Embedded"
)

#: Where services reach the data plane, for the examples that pages show; empty: under the address of the page.
PUBLIC_GATEWAY_URL: str = _env.str("CONSOLE_PUBLIC_GATEWAY_URL", default="")

CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
ADMIN_CONTENT_SECURITY_POLICY: dict[str, list[str]] = {
    **CONTENT_SECURITY_POLICY["DIRECTIVES"],
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
    # Pop-ups of related objects are windows, not frames; nothing else is embedded.
    "frame-src": [NONE],
}
API_DOCS_CONTENT_SECURITY_POLICY: dict[str, list[str]] = {
    **CONTENT_SECURITY_POLICY["DIRECTIVES"],
    "script-src": [SELF, UNSAFE_INLINE],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [SELF, "data:"],
}

#: Pages that run under the policy of the API reference.
API_DOCS_URL_NAMES = ["api-docs"]

AXES_LOCKOUT_TEMPLATE = "console/locked_out.html"


def _file(path: str) -> Any:
    def address(request: object) -> str:
        # Imported when a page is made: settings are also read by processes that serve none.
        from django.templatetags.static import static

        return static(path)

    return address


UNFOLD: dict[str, object] = {
    "SITE_TITLE": "LLMOps Console",
    "SITE_HEADER": "LLMOps Console",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _file("console/logo.svg")}],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": False,
    "BORDER_RADIUS": "6px",
    "STYLES": [_file("console/tokens.css"), _file("console/shell.css"), _file("console/admin.css")],
    "SCRIPTS": [_file("console/theme.js"), _file("console/shell.js")],
    # Stone grey with a breath of green, and petrol; the same hues as static/console/tokens.css.
    "COLORS": {
        "base": {
            "50": "oklch(97.4% .003 190)",
            "100": "oklch(95.6% .005 190)",
            "200": "oklch(90.6% .009 195)",
            "300": "oklch(83% .013 197)",
            "400": "oklch(71% .02 205)",
            "500": "oklch(49.5% .021 200)",
            "600": "oklch(40% .021 198)",
            "700": "oklch(34% .021 208)",
            "800": "oklch(28.5% .022 213)",
            "900": "oklch(21.6% .017 215)",
            "950": "oklch(17.8% .013 215)",
        },
        "primary": {
            "50": "oklch(97.6% .012 205)",
            "100": "oklch(94.4% .024 205)",
            "200": "oklch(89% .046 206)",
            "300": "oklch(82% .076 206)",
            "400": "oklch(77% .092 206)",
            "500": "oklch(73% .096 206)",
            "600": "oklch(46.6% .079 209)",
            "700": "oklch(40.5% .07 210)",
            "800": "oklch(35% .06 211)",
            "900": "oklch(30% .05 212)",
            "950": "oklch(23% .038 213)",
        },
        "font": {
            "subtle-light": "var(--color-base-500)",
            "subtle-dark": "var(--color-base-400)",
            "default-light": "var(--color-base-700)",
            "default-dark": "var(--color-base-300)",
            "important-light": "var(--color-base-950)",
            "important-dark": "var(--color-base-50)",
        },
    },
    # The navigation is console.navigation, rendered by templates/console/nav.html in place of Unfold's.
    "SIDEBAR": {"show_search": False, "show_all_applications": False, "navigation": []},
    "COMMAND": {"search_models": False},
}
