"""Files that are sent as they are made."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, StreamingHttpResponse

from llmops.base.stepwise import stepwise


def streamed(
    request: HttpRequest, chunks: Iterator[bytes], filename: str, content_type: str
) -> StreamingHttpResponse:
    response = stepwise(request, chunks, content_type)
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
