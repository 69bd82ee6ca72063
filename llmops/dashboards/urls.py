from django.urls import path

from llmops.dashboards import views
from llmops.dashboards.boards import live, saved
from llmops.dashboards.boards import views as boards
from llmops.dashboards.comparing.views import compare
from llmops.dashboards.inbox import views as inbox
from llmops.dashboards.inbox.standing import stand_ins
from llmops.dashboards.readiness import readiness, told_settings
from llmops.dashboards.reconciliation.views import reconciliation
from llmops.dashboards.routes import views as route_views
from llmops.dashboards.routes import whatif_views
from llmops.dashboards.runs import views as runs
from llmops.dashboards.spend import export_views
from llmops.dashboards.spend.views import spend
from llmops.dashboards.switches import switches
from llmops.dashboards.text_search import text_search
from llmops.dashboards.trail import views as trail

app_name = "dashboards"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("live/", views.overview_live, name="overview_live"),
    path("reliability/", boards.page, {"kind": "reliability"}, name="reliability"),
    path("reliability/panel/", boards.panel, {"kind": "reliability"}, name="reliability_panel"),
    path("reliability/live/", live.live, {"kind": "reliability"}, name="reliability_live"),
    path("traffic/", boards.page, {"kind": "traffic"}, name="traffic"),
    path("traffic/panel/", boards.panel, {"kind": "traffic"}, name="traffic_panel"),
    path("traffic/live/", live.live, {"kind": "traffic"}, name="traffic_live"),
    path("quality/", boards.page, {"kind": "quality"}, name="quality"),
    path("quality/panel/", boards.panel, {"kind": "quality"}, name="quality_panel"),
    path("quality/live/", live.live, {"kind": "quality"}, name="quality_live"),
    path("views/", saved.save, name="view_save"),
    path("views/<uuid:view_id>/", saved.opened, name="view"),
    path("views/<uuid:view_id>/remove/", saved.remove, name="view_remove"),
    path("spend/", spend, name="spend"),
    path("spend/exports/", export_views.schedules, name="exports"),
    path("reconciliation/", reconciliation, name="reconciliation"),
    path("calls/", views.calls, name="calls"),
    path("calls/compare/", compare, name="compare"),
    path("calls/search/", text_search, name="text_search"),
    path("calls/<uuid:call_id>/", views.call, name="call"),
    path("routes/editor/", route_views.editor, name="route_add"),
    path("routes/editor/<str:slug>/", route_views.editor, name="route_editor"),
    path("routes/check/", route_views.check, name="route_check"),
    path("routes/whatif/", whatif_views.whatif, name="whatif"),
    path("routes/whatif/csv/", whatif_views.whatif_csv, name="whatif_csv"),
    path("readiness/", readiness, name="readiness"),
    path("readiness/settings/", told_settings, name="settings"),
    path("switches/", switches, name="switches"),
    path("inbox/", inbox.inbox, name="inbox"),
    path("inbox/stand-ins/", stand_ins, name="stand_ins"),
    path("inbox/live/", inbox.inbox_live, name="inbox_live"),
    path("inbox/decide/", inbox.decision, name="inbox_decide"),
    path("inbox/unknown/<uuid:action_id>/", inbox.unknown, name="inbox_unknown"),
    path("inbox/<uuid:request_id>/", inbox.item, name="inbox_item"),
    path("inbox/<uuid:request_id>/live/", inbox.item_live, name="inbox_item_live"),
    path("runs/", runs.runs, name="runs"),
    path("runs/live/", runs.runs_live, name="runs_live"),
    path("runs/renew-key/", runs.renew_key, name="runs_renew_key"),
    path("runs/<uuid:run_id>/", runs.run, name="run"),
    path("runs/<uuid:run_id>/live/", runs.run_live, name="run_live"),
    path("jobs/", views.jobs, name="jobs"),
    path("audit/", trail.audit, name="audit"),
    path("audit/<int:sequence>/", trail.event, name="event"),
    path("audit/export/", trail.export_trail, name="audit_export"),
    path("audit/verify/", trail.verify, name="audit_verify"),
    path("audit/verify/live/", trail.verify_live, name="audit_verify_live"),
    path("audit/verify_audit.py", trail.verifier, name="audit_verifier"),
    path("jobs/live/", views.jobs_live, name="jobs_live"),
]
