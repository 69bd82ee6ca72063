"""Who may do what, as a table: method, address, and what each of the cast gets.

Every address that the resolver knows has a row; one without fails. ``+`` it works (or, for a probe of a key that does
not work, the page says so), ``-`` refused (403), ``0`` not there for them (404), ``1`` asked to identify (401), ``L`` sent
to sign in, ``b`` refused as a value (400: another project's name is as unknown as none), ``f`` refused on the form.

The rows follow from ``llmops/access/rules.py``: change that, and the difference is seen here.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from tests.console import surface
from tests.console.changes import ADMIN, API, LOOKS, PAGES, REPORTS, Change, address, call_api, fill_form
from tests.console.test_every_change_leaves_one_event import accepted, stand_in
from tests.console.world import ACTORS, undone

pytestmark = pytest.mark.django_db
PEOPLE = ACTORS[:7]

# fmt: off
#: nobody alice bob carla dan rita charlie | keys: inference read configure keys budgets audit members everything
API_TABLE = """
GET /api/v1/approvals/                                             1++++++-+-----+
GET /api/v1/approvals/{pk}/                                        1+++++0-+-----+
POST /api/v1/approvals/{pk}/approve/                               1+-+-----------
POST /api/v1/approvals/{pk}/cancel/                                1-----0--------
POST /api/v1/approvals/{pk}/reject/                                1+-+-----------
GET /api/v1/audit-events/                                          1+--+-------+-+
GET /api/v1/audit-events/{pk}/                                     1+--+-------+-+
GET /api/v1/budgets/                                               1++++-+-+-----+
POST /api/v1/budgets/                                              1+-+-------+--+
DELETE /api/v1/budgets/{pk}/                                       1+-+-------+--+
GET /api/v1/budgets/{pk}/                                          1++++-0-+-----+
PATCH /api/v1/budgets/{pk}/                                        1+-+-------+--+
GET /api/v1/budgets/{pk}/raises/                                   1++++-0-+-----+
GET /api/v1/budgets/{pk}/windows/                                  1++++-0-+-----+
POST /api/v1/budgets/{pk}/raises/                                  1+++--0----+--+
GET /api/v1/calls/                                                 1++++-+-+-----+
GET /api/v1/calls/{pk}/                                            1++++-0-+-----+
POST /api/v1/calls/{pk}/correct/                                   1+-+-------+--+
GET /api/v1/credentials/                                           1++-+-+-+-----+
POST /api/v1/credentials/                                          1+------------+
GET /api/v1/credentials/{pk}/                                      1++-+-+-+-----+
POST /api/v1/credentials/{pk}/activate/                            1+------------+
POST /api/v1/credentials/{pk}/drain/                               1+------------+
POST /api/v1/credentials/{pk}/probe/                               1+------------+
POST /api/v1/credentials/{pk}/read-again/                          1+------------+
POST /api/v1/credentials/{pk}/remind-after/                        1+------------+
POST /api/v1/credentials/{pk}/replace-secret/                      1+------------+
POST /api/v1/credentials/{pk}/revoke/                              1+------------+
GET /api/v1/docs/                                                  1++++++-+-----+
GET /api/v1/jobs/                                                  1+------------+
POST /api/v1/jobs/                                                 1+------------+
GET /api/v1/jobs/{pk}/                                             1+------------+
GET /api/v1/memberships/                                           1+--+--------++
POST /api/v1/memberships/                                          1+------------+
DELETE /api/v1/memberships/{pk}/                                   1+------------+
GET /api/v1/memberships/{pk}/                                      1+--+--------++
PATCH /api/v1/memberships/{pk}/                                    1+------------+
GET /api/v1/models/                                                1++++-+-+-----+
POST /api/v1/models/                                               1+------------+
GET /api/v1/models/{slug}/                                         1++++-+-+-----+
POST /api/v1/models/{slug}/archive/                                1+------------+
GET /api/v1/models/{slug}/prices/                                  1++++-+-+-----+
POST /api/v1/models/{slug}/prices/                                 1+------------+
POST /api/v1/models/{slug}/restore/                                1+------------+
GET /api/v1/models/{slug}/versions/                                1++++-+-+-----+
POST /api/v1/models/{slug}/versions/                               1+------------+
GET /api/v1/outcomes/                                              1++++-+-+-----+
POST /api/v1/outcomes/                                             1++---0+--+---+
GET /api/v1/policies/                                              1++-+++-+-----+
POST /api/v1/policies/                                             1+------------+
GET /api/v1/policies/kinds/                                        1++-+++-+-----+
GET /api/v1/policies/{slug}/                                       1++-+++-+-----+
PATCH /api/v1/policies/{slug}/                                     1+------------+
POST /api/v1/policies/{slug}/archive/                              1+------------+
POST /api/v1/policies/{slug}/restore/                              1+------------+
POST /api/v1/policies/{slug}/roll-back/                            1+------------+
POST /api/v1/policies/{slug}/try/                                  1++-+++-+-----+
GET /api/v1/policies/{slug}/versions/                              1++-+++-+-----+
GET /api/v1/projects/                                              1++++++-+-----+
POST /api/v1/projects/                                             1+------------+
GET /api/v1/projects/{slug}/                                       1+++++0-+-----+
PATCH /api/v1/projects/{slug}/                                     1+-------+----+
POST /api/v1/projects/{slug}/archive/                              1+-------+----+
POST /api/v1/projects/{slug}/restore/                              1+-------0----+
GET /api/v1/prompts/                                               1++-+++-+-----+
POST /api/v1/prompts/                                              1++---b--+----+
POST /api/v1/prompts/preview/                                      1++-+++-+-----+
POST /api/v1/prompts/import/                                       1++---b--+----+
GET /api/v1/prompts/{pk}/                                          1++-++0-+-----+
PATCH /api/v1/prompts/{pk}/                                        1++---0--+----+
POST /api/v1/prompts/{pk}/archive/                                 1++---0--+----+
GET /api/v1/prompts/{pk}/compare/                                  1bb-bb0-b-----b
PUT /api/v1/prompts/{pk}/draft/                                    1++---0--+----+
DELETE /api/v1/prompts/{pk}/draft/                                 1++---0--+----+
POST /api/v1/prompts/{pk}/duplicate/                               1++---0--+----+
GET /api/v1/prompts/{pk}/export/                                   1++-++0-+-----+
GET /api/v1/prompts/{pk}/history/                                  1++-++0-+-----+
POST /api/v1/prompts/{pk}/labels/                                  1++---0--+----+
POST /api/v1/prompts/{pk}/remove-label/                            1++---0--+----+
POST /api/v1/prompts/{pk}/render/                                  1++-++0-+-----+
POST /api/v1/prompts/{pk}/restore/                                 1++---0--+----+
GET /api/v1/prompts/{pk}/version/                                  1++-++0-+-----+
GET /api/v1/prompts/{pk}/versions/                                 1++-++0-+-----+
POST /api/v1/prompts/{pk}/versions/                                1++---0--+----+
GET /api/v1/providers/                                             1++-+-+-+-----+
POST /api/v1/providers/                                            1+------------+
GET /api/v1/providers/{slug}/                                      1++-+-+-+-----+
PATCH /api/v1/providers/{slug}/                                    1+------------+
POST /api/v1/providers/{slug}/archive/                             1+------------+
POST /api/v1/providers/{slug}/pause/                               1+------------+
POST /api/v1/providers/{slug}/restore/                             1+------------+
POST /api/v1/providers/{slug}/resume/                              1+------------+
GET /api/v1/revisions/                                             1++-+-+-+-----+
POST /api/v1/revisions/                                            1+------------+
GET /api/v1/revisions/pending/                                     1++-+-+-+-----+
GET /api/v1/revisions/{number}/                                    1++-+-+-+-----+
POST /api/v1/revisions/{number}/restore/                           1+------------+
GET /api/v1/rotations/                                             1++-+-+-+-----+
POST /api/v1/rotations/                                            1+------------+
GET /api/v1/rotations/{pk}/                                        1++-+-+-+-----+
POST /api/v1/rotations/{pk}/activate/                              1+------------+
POST /api/v1/rotations/{pk}/cancel/                                1+------------+
POST /api/v1/rotations/{pk}/finish/                                1+------------+
POST /api/v1/rotations/{pk}/take-back/                             1+------------+
GET /api/v1/routes/                                                1++++-+-+-----+
POST /api/v1/routes/                                               1+------------+
GET /api/v1/routes/{slug}/                                         1++++-+-+-----+
PATCH /api/v1/routes/{slug}/                                       1+------------+
POST /api/v1/routes/{slug}/archive/                                1+------------+
POST /api/v1/routes/{slug}/degrade/                                1+------------+
POST /api/v1/routes/{slug}/reset-breakers/                         1+------------+
POST /api/v1/routes/{slug}/pause/                                  1+------------+
POST /api/v1/routes/{slug}/recover/                                1+------------+
POST /api/v1/routes/{slug}/restore/                                1+------------+
POST /api/v1/routes/{slug}/resume/                                 1+------------+
GET /api/v1/schema/                                                1++++++-+-----+
GET /api/v1/service-keys/                                          1++-+-+-+-----+
POST /api/v1/service-keys/                                         1++---b---+---+
GET /api/v1/service-keys/{pk}/                                     1++-+-0-+-----+
PATCH /api/v1/service-keys/{pk}/                                   1++---0---+---+
POST /api/v1/service-keys/{pk}/end-grace/                          1++---0---+---+
POST /api/v1/service-keys/{pk}/revoke/                             1++---0---+---+
POST /api/v1/service-keys/{pk}/rotate/                             1++---0---+---+
GET /api/v1/spend/                                                 1++++-+-+-----+
GET /api/v1/users/                                                 1+------------+
POST /api/v1/users/                                                1+------------+
GET /api/v1/users/{pk}/                                            1+------------+
PATCH /api/v1/users/{pk}/                                          1+------------+
POST /api/v1/users/{pk}/activate/                                  1+------------+
POST /api/v1/users/{pk}/deactivate/                                1+------------+
POST /api/v1/users/{pk}/end-sessions/                              1+------------+
POST /api/v1/users/{pk}/reset-second-factor/                       1+------------+
POST /api/v1/users/{pk}/set-password/                              1+------------+
POST /api/v1/users/{pk}/unlock/                                    1+------------+
"""
#: nobody alice bob carla dan rita charlie
PAGE_TABLE = """
GET /                                                              L++++++
GET /account/                                                      L++++++
GET /account/code/                                                 LLLLLLL
GET /account/second-factor/remove/                                 L405405405405405405
GET /account/second-factor/codes/                                  L405405405405405405
GET /account/sessions/end-others/                                  L405405405405405405
GET /account/sessions/{sign_in}/end/                               L405405405405405405
GET /account/oidc/                                                 0000000
GET /account/oidc/callback/                                        0000000
GET /account/second-factor/                                        L++++++
POST /account/second-factor/                                       Lbbbbbb
POST /account/second-factor/remove/                                L409409409409409409
POST /account/second-factor/codes/                                 L409409409409409409
POST /account/sessions/end-others/                                 L++++++
GET /admin/                                                        L++++++
GET /admin/access/membership/                                      L+--+--
GET /admin/access/membership/add/                                  L+-----
POST /admin/access/membership/add/                                 L+-----
GET /admin/access/membership/{object_id}/                          L++++++
GET /admin/access/membership/{object_id}/change/                   L+00+00
POST /admin/access/membership/{object_id}/change/                  L+00-00
GET /admin/access/membership/{object_id}/delete/                   L+00-00
POST /admin/access/membership/{object_id}/delete/                  L+00-00
GET /admin/access/membership/{object_id}/history/                  L+00+00
GET /admin/access/project/                                         L++++++
GET /admin/access/project/add/                                     L+-----
POST /admin/access/project/add/                                    L+-----
GET /admin/access/project/{object_id}/                             L++++++
GET /admin/access/project/{object_id}/archive/                     L+----0
POST /admin/access/project/{object_id}/archive/                    L+----0
GET /admin/access/project/{object_id}/change/                      L+++++0
POST /admin/access/project/{object_id}/change/                     L+----0
GET /admin/access/project/{object_id}/delete/                      L-----0
GET /admin/access/project/{object_id}/history/                     L+++++0
GET /admin/access/project/{object_id}/restore/                     L+----0
POST /admin/access/project/{object_id}/restore/                    L+00000
GET /admin/access/servicekey/                                      L++-+-+
GET /admin/access/servicekey/add/                                  L++---+
POST /admin/access/servicekey/add/                                 L++---f
GET /admin/access/servicekey/{object_id}/                          L++++++
GET /admin/access/servicekey/{object_id}/change/                   L++0+00
POST /admin/access/servicekey/{object_id}/change/                  L++0-00
GET /admin/access/servicekey/{object_id}/delete/                   L--0-00
GET /admin/access/servicekey/{object_id}/history/                  L++0+00
GET /admin/access/servicekey/{object_id}/end-grace/                L++0-00
GET /admin/access/servicekey/{object_id}/revoke/                   L++0-00
POST /admin/access/servicekey/{object_id}/end-grace/               L++0-00
POST /admin/access/servicekey/{object_id}/revoke/                  L++0-00
GET /admin/access/servicekey/{object_id}/rotate/                   L++0-00
POST /admin/access/servicekey/{object_id}/rotate/                  L++0-00
GET /admin/approvals/request/                                      L++++++
GET /admin/approvals/request/add/                                  L------
GET /admin/approvals/request/{object_id}/                          L++++++
GET /admin/approvals/request/{object_id}/approve/                  L+-+-+0
POST /admin/approvals/request/{object_id}/approve/                 L+-+-f0
GET /admin/approvals/request/{object_id}/change/                   L+++++0
GET /admin/approvals/request/{object_id}/delete/                   L-----0
GET /admin/approvals/request/{object_id}/history/                  L+++++0
GET /admin/approvals/request/{object_id}/reject/                   L+-+-+0
POST /admin/approvals/request/{object_id}/reject/                  L+-+-f0
GET /admin/approvals/request/{object_id}/take-back/                L+++++0
POST /admin/approvals/request/{object_id}/take-back/               Lfffff0
GET /admin/audit/event/                                            L+--+--
GET /admin/audit/event/add/                                        L------
GET /admin/audit/event/{object_id}/                                L++++++
GET /admin/audit/event/{object_id}/change/                         L+00+00
GET /admin/audit/event/{object_id}/delete/                         L-00-00
GET /admin/audit/event/{object_id}/history/                        L+00+00
GET /admin/auth/user/                                              L+-----
GET /admin/auth/user/add/                                          L+-----
POST /admin/auth/user/add/                                         L+-----
GET /admin/auth/user/{object_id}/                                  L++++++
GET /admin/auth/user/{object_id}/activate/                         L+00000
POST /admin/auth/user/{object_id}/activate/                        L+00000
GET /admin/auth/user/{object_id}/change/                           L+00000
POST /admin/auth/user/{object_id}/change/                          L+00000
GET /admin/auth/user/{object_id}/deactivate/                       L+00000
POST /admin/auth/user/{object_id}/deactivate/                      L+00000
GET /admin/auth/user/{object_id}/delete/                           L-00000
GET /admin/auth/user/{object_id}/end-sessions/                     L+00000
POST /admin/auth/user/{object_id}/end-sessions/                    L+00000
GET /admin/auth/user/{object_id}/reset-factor/                     L+00000
POST /admin/auth/user/{object_id}/reset-factor/                    L+00000
GET /admin/auth/user/{object_id}/history/                          L+00000
GET /admin/auth/user/{object_id}/set-password/                     L+00000
POST /admin/auth/user/{object_id}/set-password/                    L+00000
GET /admin/auth/user/{object_id}/unlock/                           L+00000
POST /admin/auth/user/{object_id}/unlock/                          L+00000
GET /admin/autocomplete/                                           L------
GET /admin/base/masterkeyverifier/                                 L+-----
GET /admin/base/masterkeyverifier/add/                             L------
GET /admin/base/masterkeyverifier/reseal/                          L+-----
POST /admin/base/masterkeyverifier/reseal/                         L+-----
GET /admin/base/masterkeyverifier/{object_id}/                     L++++++
GET /admin/base/masterkeyverifier/{object_id}/change/              L+00000
GET /admin/base/masterkeyverifier/{object_id}/delete/              L-00000
GET /admin/base/masterkeyverifier/{object_id}/history/             L+00000
GET /admin/base/masterkeyverifier/{object_id}/retire/              L+00000
POST /admin/base/masterkeyverifier/{object_id}/retire/             L+00000
GET /admin/budgets/budget/                                         L++++-+
GET /admin/budgets/budget/add/                                     L+-+---
POST /admin/budgets/budget/add/                                    L+-+---
GET /admin/budgets/budget/{object_id}/                             L++++++
GET /admin/budgets/budget/{object_id}/archive/                     L+-+-00
POST /admin/budgets/budget/{object_id}/archive/                    L+-+-00
GET /admin/budgets/budget/{object_id}/ask-for-a-raise/             L+++-00
POST /admin/budgets/budget/{object_id}/ask-for-a-raise/            L+++-00
GET /admin/budgets/budget/{object_id}/ask-to-loosen/               L+++-00
POST /admin/budgets/budget/{object_id}/ask-to-loosen/              L+++-00
GET /admin/budgets/budget/{object_id}/change/                      L++++00
POST /admin/budgets/budget/{object_id}/change/                     L+-+-00
GET /admin/budgets/budget/{object_id}/delete/                      L----00
GET /admin/budgets/budget/{object_id}/history/                     L++++00
GET /admin/budgets/lease/                                          L++++-+
GET /admin/budgets/lease/add/                                      L------
GET /admin/budgets/lease/{object_id}/                              L++++++
GET /admin/budgets/lease/{object_id}/change/                       L++++00
GET /admin/budgets/lease/{object_id}/delete/                       L----00
GET /admin/budgets/lease/{object_id}/explain/                      L+-+-00
POST /admin/budgets/lease/{object_id}/explain/                     L+-+-00
GET /admin/budgets/lease/{object_id}/history/                      L++++00
GET /admin/budgets/overrun/                                        L++++-+
GET /admin/budgets/overrun/add/                                    L------
GET /admin/budgets/overrun/{object_id}/                            L++++++
GET /admin/budgets/overrun/{object_id}/change/                     L++++00
GET /admin/budgets/overrun/{object_id}/delete/                     L----00
GET /admin/budgets/overrun/{object_id}/history/                    L++++00
GET /admin/jsi18n/                                                 L++++++
GET /admin/password_change/                                        L++++++
GET /admin/password_change/done/                                   L++++++
GET /admin/policies/policy/                                        L++-+++
GET /admin/policies/policy/add/                                    L+-----
POST /admin/policies/policy/add/                                   L+-----
GET /admin/policies/policy/{object_id}/                            L++++++
GET /admin/policies/policy/{object_id}/archive/                    L+-0---
POST /admin/policies/policy/{object_id}/archive/                   L+-0---
GET /admin/policies/policy/{object_id}/change/                     L++0+++
POST /admin/policies/policy/{object_id}/change/                    L+-0---
GET /admin/policies/policy/{object_id}/delete/                     L--0---
GET /admin/policies/policy/{object_id}/history/                    L++0+++
GET /admin/policies/policy/{object_id}/restore/                    L+-0---
POST /admin/policies/policy/{object_id}/restore/                   L+-0---
GET /admin/policies/policy/{object_id}/try-it/                     L++0+++
POST /admin/policies/policy/{object_id}/try-it/                    L++0+++
GET /admin/policies/policyversion/                                 L++-+++
GET /admin/policies/policyversion/add/                             L------
GET /admin/policies/policyversion/{object_id}/                     L++++++
GET /admin/policies/policyversion/{object_id}/change/              L++0+++
GET /admin/policies/policyversion/{object_id}/delete/              L--0---
GET /admin/policies/policyversion/{object_id}/history/             L++0+++
GET /admin/policies/policyversion/{object_id}/roll-back/           L+-0---
POST /admin/policies/policyversion/{object_id}/roll-back/          L+-0---
GET /admin/prompts/label/                                          L++-+++
GET /admin/prompts/label/add/                                      L------
GET /admin/prompts/label/{object_id}/                              L++++++
GET /admin/prompts/label/{object_id}/back/                         L++0--0
POST /admin/prompts/label/{object_id}/back/                        L++0--0
GET /admin/prompts/label/{object_id}/change/                       L++0++0
GET /admin/prompts/label/{object_id}/delete/                       L--0--0
GET /admin/prompts/label/{object_id}/history/                      L++0++0
GET /admin/prompts/label/{object_id}/move/                         L++0--0
POST /admin/prompts/label/{object_id}/move/                        L++0--0
GET /admin/prompts/label/{object_id}/take-away/                    L++0--0
POST /admin/prompts/label/{object_id}/take-away/                   L++0--0
GET /admin/prompts/prompt/                                         L++-+++
GET /admin/prompts/prompt/add/                                     L++---+
POST /admin/prompts/prompt/add/                                    L++---f
GET /admin/prompts/prompt/import-files/                            L++---+
POST /admin/prompts/prompt/import-files/                           L++---f
GET /admin/prompts/prompt/{object_id}/                             L++++++
GET /admin/prompts/prompt/{object_id}/archive/                     L++0--0
POST /admin/prompts/prompt/{object_id}/archive/                    L++0--0
GET /admin/prompts/prompt/{object_id}/change/                      L++0++0
POST /admin/prompts/prompt/{object_id}/change/                     L++0--0
GET /admin/prompts/prompt/{object_id}/compare/                     L++0++0
POST /admin/prompts/prompt/{object_id}/compare/                    L++0++0
GET /admin/prompts/prompt/{object_id}/delete/                      L--0--0
GET /admin/prompts/prompt/{object_id}/discard-draft/               L++0--0
POST /admin/prompts/prompt/{object_id}/discard-draft/              L++0--0
GET /admin/prompts/prompt/{object_id}/duplicate/                   L++0--0
POST /admin/prompts/prompt/{object_id}/duplicate/                  L++0--0
GET /admin/prompts/prompt/{object_id}/history/                     L++0++0
GET /admin/prompts/prompt/{object_id}/point-label/                 L++0--0
POST /admin/prompts/prompt/{object_id}/point-label/                L++0--0
GET /admin/prompts/prompt/{object_id}/restore/                     L++0--0
POST /admin/prompts/prompt/{object_id}/restore/                    L++0--0
GET /admin/prompts/promptversion/                                  L++-+++
GET /admin/prompts/promptversion/add/                              L------
GET /admin/prompts/promptversion/{object_id}/                      L++++++
GET /admin/prompts/promptversion/{object_id}/change/               L++0++0
GET /admin/prompts/promptversion/{object_id}/delete/               L--0--0
GET /admin/prompts/promptversion/{object_id}/edit-from-here/       L++0--0
POST /admin/prompts/promptversion/{object_id}/edit-from-here/      L++0--0
GET /admin/prompts/promptversion/{object_id}/history/              L++0++0
GET /admin/prompts/promptversion/{object_id}/point-label/          L++0--0
POST /admin/prompts/promptversion/{object_id}/point-label/         L++0--0
GET /admin/providers/credential/                                   L++-+-+
GET /admin/providers/credential/add/                               L+-----
POST /admin/providers/credential/add/                              L+-----
GET /admin/providers/credential/{object_id}/                       L++++++
GET /admin/providers/credential/{object_id}/activate/              L+-0-0-
POST /admin/providers/credential/{object_id}/activate/             L+-0-0-
GET /admin/providers/credential/{object_id}/change/                L++0+0+
GET /admin/providers/credential/{object_id}/delete/                L--0-0-
GET /admin/providers/credential/{object_id}/drain/                 L+-0-0-
POST /admin/providers/credential/{object_id}/drain/                L+-0-0-
GET /admin/providers/credential/{object_id}/history/               L++0+0+
GET /admin/providers/credential/{object_id}/probe/                 L+-0-0-
POST /admin/providers/credential/{object_id}/probe/                L+-0-0-
GET /admin/providers/credential/{object_id}/replace/               L+-0-0-
POST /admin/providers/credential/{object_id}/replace/              L+-0-0-
GET /admin/providers/credential/{object_id}/read-again/            L+-0-0-
POST /admin/providers/credential/{object_id}/read-again/           L+-0-0-
GET /admin/providers/credential/{object_id}/remind/                L+-0-0-
POST /admin/providers/credential/{object_id}/remind/               L+-0-0-
GET /admin/providers/credential/{object_id}/rotate/                L+-0-0-
POST /admin/providers/credential/{object_id}/rotate/               L+-0-0-
GET /admin/providers/credential/{object_id}/revoke/                L+-0-0-
POST /admin/providers/credential/{object_id}/revoke/               L+-0-0-
GET /admin/providers/model/                                        L++++-+
GET /admin/providers/model/add/                                    L+-----
POST /admin/providers/model/add/                                   L+-----
GET /admin/providers/model/{object_id}/                            L++++++
GET /admin/providers/model/{object_id}/archive/                    L+---0-
POST /admin/providers/model/{object_id}/archive/                   L+---0-
GET /admin/providers/model/{object_id}/change/                     L++++0+
POST /admin/providers/model/{object_id}/change/                    L+---0-
GET /admin/providers/model/{object_id}/delete/                     L----0-
GET /admin/providers/model/{object_id}/history/                    L++++0+
GET /admin/providers/model/{object_id}/listed-prices/              L+---0-
POST /admin/providers/model/{object_id}/listed-prices/             L+---0-
GET /admin/providers/model/{object_id}/price/                      L+---0-
POST /admin/providers/model/{object_id}/price/                     L+---0-
GET /admin/providers/model/{object_id}/restore/                    L+---0-
POST /admin/providers/model/{object_id}/restore/                   L+---0-
GET /admin/providers/price/                                        L++++-+
GET /admin/providers/price/add/                                    L+-----
POST /admin/providers/price/add/                                   L+-----
GET /admin/providers/price/{object_id}/                            L++++++
GET /admin/providers/price/{object_id}/change/                     L++++0+
GET /admin/providers/price/{object_id}/delete/                     L----0-
GET /admin/providers/price/{object_id}/history/                    L++++0+
GET /admin/providers/provider/                                     L++-+-+
GET /admin/providers/provider/add/                                 L+-----
POST /admin/providers/provider/add/                                L+-----
GET /admin/providers/provider/{object_id}/                         L++++++
GET /admin/providers/provider/{object_id}/archive/                 L+-0-0-
POST /admin/providers/provider/{object_id}/archive/                L+-0-0-
GET /admin/providers/provider/{object_id}/change/                  L++0+0+
POST /admin/providers/provider/{object_id}/change/                 L+-0-0-
GET /admin/providers/provider/{object_id}/delete/                  L--0-0-
GET /admin/providers/provider/{object_id}/history/                 L++0+0+
GET /admin/providers/provider/{object_id}/pause/                   L+-0-0-
POST /admin/providers/provider/{object_id}/pause/                  L+-0-0-
GET /admin/providers/provider/{object_id}/restore/                 L+-0-0-
POST /admin/providers/provider/{object_id}/restore/                L+-0-0-
GET /admin/providers/provider/{object_id}/resume/                  L+-0-0-
POST /admin/providers/provider/{object_id}/resume/                 L+-0-0-
GET /admin/providers/rotation/                                     L++-+-+
GET /admin/providers/rotation/add/                                 L------
GET /admin/providers/rotation/{object_id}/                         L++++++
GET /admin/providers/rotation/{object_id}/activate/                L+-0-0-
POST /admin/providers/rotation/{object_id}/activate/               L+-0-0-
GET /admin/providers/rotation/{object_id}/cancel/                  L+-0-0-
POST /admin/providers/rotation/{object_id}/cancel/                 L+-0-0-
GET /admin/providers/rotation/{object_id}/finish/                  L+-0-0-
POST /admin/providers/rotation/{object_id}/finish/                 L+-0-0-
GET /admin/providers/rotation/{object_id}/take-back/               L+-0-0-
POST /admin/providers/rotation/{object_id}/take-back/              L+-0-0-
GET /admin/providers/rotation/{object_id}/change/                  L++0+0+
GET /admin/providers/rotation/{object_id}/delete/                  L--0-0-
GET /admin/providers/rotation/{object_id}/history/                 L++0+0+
GET /admin/providers/route/                                        L++++-+
GET /admin/providers/route/add/                                    L+-----
POST /admin/providers/route/add/                                   L+-----
GET /admin/providers/route/{object_id}/                            L++++++
GET /admin/providers/route/{object_id}/archive/                    L+---0-
POST /admin/providers/route/{object_id}/archive/                   L+---0-
GET /admin/providers/route/{object_id}/change/                     L++++0+
POST /admin/providers/route/{object_id}/change/                    L+---0-
GET /admin/providers/route/{object_id}/degrade/                    L+---0-
POST /admin/providers/route/{object_id}/degrade/                   L+---0-
GET /admin/providers/route/{object_id}/reset-breakers/             L+---0-
POST /admin/providers/route/{object_id}/reset-breakers/            L+---0-
GET /admin/providers/route/{object_id}/delete/                     L----0-
GET /admin/providers/route/{object_id}/history/                    L++++0+
GET /admin/providers/route/{object_id}/pause/                      L+---0-
POST /admin/providers/route/{object_id}/pause/                     L+---0-
GET /admin/providers/route/{object_id}/recover/                    L+---0-
POST /admin/providers/route/{object_id}/recover/                   L+---0-
GET /admin/providers/route/{object_id}/restore/                    L+---0-
POST /admin/providers/route/{object_id}/restore/                   L+---0-
GET /admin/providers/route/{object_id}/resume/                     L+---0-
POST /admin/providers/route/{object_id}/resume/                    L+---0-
GET /admin/r/{content_type_id}/{object_id}/                        L000000
GET /admin/search/                                                 L++++++
GET /admin/serving/revision/                                       L++-+-+
GET /admin/serving/revision/add/                                   L------
GET /admin/serving/revision/publish/                               L+-----
POST /admin/serving/revision/publish/                              L+-----
GET /admin/serving/revision/{object_id}/                           L++++++
GET /admin/serving/revision/{object_id}/change/                    L++0+0+
GET /admin/serving/revision/{object_id}/delete/                    L--0-0-
GET /admin/serving/revision/{object_id}/history/                   L++0+0+
GET /admin/serving/revision/{object_id}/restore/                   L+-0-0-
POST /admin/serving/revision/{object_id}/restore/                  L+-0-0-
GET /admin/usage/call/                                             L++++-+
GET /admin/usage/call/add/                                         L------
GET /admin/usage/call/{object_id}/                                 L++++++
GET /admin/usage/call/{object_id}/change/                          L++++00
GET /admin/usage/call/{object_id}/correct/                         L+-+-00
POST /admin/usage/call/{object_id}/correct/                        L+-+-00
GET /admin/usage/call/{object_id}/delete/                          L----00
GET /admin/usage/call/{object_id}/history/                         L++++00
GET /admin/usage/job/                                              L+-----
GET /admin/usage/job/add/                                          L------
GET /admin/usage/job/{object_id}/                                  L++++++
GET /admin/usage/job/{object_id}/change/                           L+00000
GET /admin/usage/job/{object_id}/delete/                           L-00000
GET /admin/usage/job/{object_id}/history/                          L+00000
GET /admin/usage/journal/                                          L+-----
GET /admin/usage/journal/add/                                      L------
GET /admin/usage/journal/{object_id}/                              L++++++
GET /admin/usage/journal/{object_id}/change/                       L+00000
GET /admin/usage/journal/{object_id}/delete/                       L-00000
GET /admin/usage/journal/{object_id}/history/                      L+00000
GET /admin/{app_label}/                                            L++++++
GET /admin/{url}                                                   L000000
GET /calls/                                                        L++++-+
GET /calls/{call_id}/                                              L++++00
GET /jobs/                                                         L++++-+
GET /reconciliation/                                               L+-----
POST /reconciliation/                                              L+-----
GET /spend/                                                        L++++-+
POST /spend/                                                       L++++-+
GET /spend/exports/                                                L++++-+
POST /spend/exports/                                               L+-+---
POST /jobs/                                                        L+-----
GET /jobs/live/                                                    1++++-+
GET /live/                                                         1++++++
"""
# fmt: on
#: Not in the table: the same for everybody.
SAME_FOR_ALL = {"/admin/login/", "/admin/logout/", "/api/", "/api/v1/", "/api/{rest}"}


def read(table: str) -> dict[str, str]:
    rows = [line.rsplit(maxsplit=1) for line in table.strip().splitlines()]
    return {key.strip(): codes for key, codes in rows}


API_ROWS, PAGE_ROWS = read(API_TABLE), read(PAGE_TABLE)
AREAS = sorted({key.split("/")[2] if key.split()[1].startswith("/admin/") else "" for key in PAGE_ROWS})


def code(answer: Any) -> str:
    if answer.status_code == 302 and answer["Location"].startswith("/admin/login/"):
        return "L"
    if answer.status_code in (200, 201, 202, 204, 302):
        return "+" if accepted(answer) else "f"
    return {400: "b", 401: "1", 403: "-", 404: "0"}.get(answer.status_code, str(answer.status_code))


def looked_at(route: str, world: SimpleNamespace) -> str:
    """The address of something of the project support, or of the organisation."""
    things = {
        "calls": world.call.pk, "jobs": world.job.pk, "audit-events": world.event.pk, "models": world.model.slug,
        "revisions": world.revision.number, "projects": "support", "service-keys": world.key.pk,
        "memberships": world.membership.pk, "users": world.eve.pk, "providers": world.provider.slug,
        "policies": world.policy.slug, "credentials": world.staged.pk, "routes": world.route.slug, "budgets": world.budget.pk,
        "approvals": world.raise_asked.pk, "rotations": world.rotation.pk, "prompts": world.prompt.pk,
    }  # fmt: skip
    if not route.startswith("/api/v1/") or "{" not in route:
        return stand_in(route, world)
    return re.sub(r"\{\w+\}", str(things[route.split("/")[3]]), route)


def test_every_address_has_a_row():
    api = set(surface.api_routes()) | {"GET /api/v1/schema/", "GET /api/v1/docs/"}
    assert set(API_ROWS) == api
    shown = {f"GET {route}" for route in surface.admin_pages() | surface.other_pages()}
    shown -= {f"GET {route}" for route in SAME_FOR_ALL} | api
    looked = {key for key in LOOKS if key.split()[1].startswith("/admin/")}
    changed = set(ADMIN) | looked | set(PAGES) - {"POST /admin/logout/"}
    assert set(PAGE_ROWS) == shown | changed


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", ["looking", "changing"])
def test_the_api(world, kind):
    found = {}
    for key in API_ROWS:
        if key.startswith("GET ") != (kind == "looking"):
            continue
        codes = ""
        for actor in ACTORS:
            with undone():
                if key.startswith("GET "):
                    answer = world.clients[actor].get(looked_at(key.split()[1], world))
                else:
                    answer = call_api(world.clients[actor], key, {**API, **LOOKS, **REPORTS}[key], world)
            codes += code(answer)
        found[key] = codes
    assert found == {key: API_ROWS[key] for key in found}


@pytest.mark.any_engine
@pytest.mark.parametrize("area", AREAS)
def test_the_pages(world, area):
    found = {}
    for key, expected in PAGE_ROWS.items():
        if (key.split("/")[2] if key.split()[1].startswith("/admin/") else "") != area:
            continue
        change: Change | None = {**ADMIN, **LOOKS, **PAGES}.get(key)
        form: dict[str, Any] = {}
        if key in ADMIN or key in LOOKS:
            form = fill_form(world.clients["root"], key, change, world)
        codes = ""
        for actor in PEOPLE:
            client = world.clients[actor]
            if key in PAGES and change:
                # Anew for each: a file that one has sent is at its end.
                form = change.sent(world)
            elif change:
                for sent in form.values():
                    if hasattr(sent, "seek"):
                        sent.seek(0)
            if change is None:
                codes += code(client.get(looked_at(key.split()[1], world)))
                continue
            with undone():
                codes += code(client.post(address(key, change, world), form))
        if key.endswith("/probe/"):
            # The page says, as an error, that the key does not work: it was tried.
            codes = codes.replace("f", "+")
        found[key] = codes
        assert len(codes) == len(expected)
    assert found == {key: PAGE_ROWS[key] for key in found}


@pytest.mark.any_engine
def test_keys_open_no_page(world):
    client = world.clients["k_everything"]
    for key in PAGE_ROWS:
        answer = client.get(looked_at(key.split()[1], world))
        nobody_has_it = set(PAGE_ROWS[key]) == {"0"}
        assert code(answer) in ("0" if nobody_has_it else "L1"), (key, answer.status_code)


@pytest.mark.any_engine
def test_what_is_the_same_for_everybody(world):
    for actor in ACTORS:
        client = world.clients[actor]
        assert client.get("/admin/login/").status_code in (200, 302)
        for route in ("/api/", "/api/v1/", "/api/nothing/"):
            assert client.get(route).status_code == 404
