from django.urls import path

from llmops.alerts import views

app_name = "alerts"

urlpatterns = [
    path("", views.alerts, name="alerts"),
    path("live/", views.alerts_live, name="live"),
    path("slos/", views.slos, name="slos"),
    path("runbooks/", views.runbooks, name="runbooks"),
    path("runbooks/<slug:name>/", views.runbook, name="runbook"),
    path("<uuid:incident_id>/", views.incident, name="incident"),
    path("<uuid:incident_id>/live/", views.incident_live, name="incident_live"),
    path("<uuid:incident_id>/postmortem/", views.postmortem, name="postmortem"),
]
