"""The addresses of processes that serve no pages."""

urlpatterns: list[object] = []
