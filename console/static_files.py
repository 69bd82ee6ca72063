"""Static files as asynchronous answers take them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """Each file in one piece: Django would collect the pieces before it sends the first, and warn of it in the log."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        found = WhiteNoiseMiddleware.serve(static_file, request)
        try:
            whole = HttpResponse(b"".join(found), status=found.status_code)
        finally:
            # The file alone: to close an answer says that the request is over, which also closes connections to the database.
            if found.file_to_stream is not None:
                found.file_to_stream.close()
        # WhiteNoise decides about every header, also that a 304 has no content type.
        whole.headers = found.headers
        return whole
