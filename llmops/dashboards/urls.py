from django.urls import path

from llmops.dashboards import views
from llmops.dashboards.reconciliation.views import reconciliation
from llmops.dashboards.spend import export_views
from llmops.dashboards.spend.views import spend

app_name = "dashboards"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("live/", views.overview_live, name="overview_live"),
    path("spend/", spend, name="spend"),
    path("spend/exports/", export_views.schedules, name="exports"),
    path("reconciliation/", reconciliation, name="reconciliation"),
    path("calls/", views.calls, name="calls"),
    path("calls/<uuid:call_id>/", views.call, name="call"),
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/live/", views.jobs_live, name="jobs_live"),
]
