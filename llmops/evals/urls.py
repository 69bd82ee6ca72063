from django.urls import path

from llmops.evals import views

app_name = "evals"

urlpatterns = [
    path("", views.datasets, name="datasets"),
    path("add/<uuid:call_id>/", views.add, name="add"),
    path("<uuid:dataset_id>/", views.dataset, name="dataset"),
]
