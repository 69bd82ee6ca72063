from django.urls import path

from llmops.playground import replay_views, views

app_name = "playground"

urlpatterns = [
    path("", views.page, name="page"),
    path("choices/", views.choices, name="choices"),
    path("version/", views.version, name="version"),
    path("run/", views.run, name="run"),
    path("cancel/", views.cancel, name="cancel"),
    path("events/", views.events, name="events"),
    path("share/", views.share, name="share"),
    path("save-version/", views.save_version, name="save_version"),
    path("save-sample/", views.save_sample, name="save_sample"),
    path("renew-key/", views.renew_key, name="renew_key"),
    path("replay/<uuid:call_id>/", replay_views.replay, name="replay"),
    path("replays/<uuid:replay_id>/", replay_views.made, name="replay_made"),
    path("replays/<uuid:replay_id>/live/", replay_views.live, name="replay_live"),
]
