"""What becomes of each fault, as one table: what the client sees, what was tried again, what was billed.

- **endpoint**: ``every`` one that is not named in another row of the same fault.
- **how**: plain, stream, or both.
- **client**: status and code of the error body; ``200`` is the provider's answer, ``200, then CODE`` a stream that ends with
  an error event and without its proper end; ``200, then cut`` a sound whose connection closes before its end. Whoever reads a
  stream of sound reads its events alone: there the SDK raises nothing.
- **SDK**: the class that the official SDK raises.
- **tries**: requests that reached a provider for which the route allows three.
- **billed**: ``nothing``; the stated ``usage``; what was ``counted`` (never more than the hold); or the ``hold`` of each try,
  because nobody can know what the provider did.
- **ledger**: the status under which the call is recorded.
- A sound in one piece states no usage, and a proper end in its middle cannot be told from its own.
- **fallback**: what a second model does: it ``answers``, it is ``not asked``, or it ``can't`` since the answer had begun.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLE = """
fault                | endpoint | how    | client                        | SDK                   | tries | billed  | ledger      | fallback
none                 | every    | both   | 200                           | -                     | 1     | usage   | ok          | not asked
none                 | speech   | plain  | 200                           | -                     | 1     | counted | ok          | not asked
429 with Retry-After | every    | both   | 429 rate_limit_exceeded       | RateLimitError        | 3     | nothing | error       | answers
429 quota used up    | every    | both   | 429 insufficient_quota        | RateLimitError        | 1     | nothing | error       | answers
500                  | every    | both   | 502 upstream_error            | InternalServerError   | 3     | nothing | error       | answers
503                  | every    | both   | 502 upstream_error            | InternalServerError   | 3     | nothing | error       | answers
401                  | every    | both   | 502 upstream_auth             | InternalServerError   | 1     | nothing | error       | answers
403                  | every    | both   | 502 upstream_auth             | InternalServerError   | 1     | nothing | error       | answers
404 model            | every    | both   | 502 upstream_error            | InternalServerError   | 1     | nothing | error       | answers
400                  | every    | both   | 400 invalid_value             | BadRequestError       | 1     | nothing | error       | not asked
422                  | every    | both   | 422                           | UnprocessableEntityError | 1  | nothing | error       | not asked
context length       | every    | both   | 400 context_length_exceeded   | BadRequestError       | 1     | nothing | error       | not asked
content filter       | every    | both   | 400 content_filter            | BadRequestError       | 1     | nothing | error       | not asked
a redirect           | every    | both   | 502 upstream_error            | InternalServerError   | 1     | nothing | error       | answers
hang                 | every    | both   | 504 upstream_timeout          | InternalServerError   | 3     | hold    | error       | answers
drop                 | every    | both   | 502 stream_interrupted        | InternalServerError   | 3     | hold    | error       | answers
hang midway          | every    | plain  | 504 upstream_timeout          | InternalServerError   | 3     | hold    | error       | answers
hang midway          | speech   | plain  | 200, then cut                 | APIConnectionError    | 1     | counted | interrupted | can't
hang midway          | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
hang midway          | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
drop midway          | every    | plain  | 502 stream_interrupted        | InternalServerError   | 3     | hold    | error       | answers
drop midway          | speech   | plain  | 200, then cut                 | APIConnectionError    | 1     | counted | interrupted | can't
drop midway          | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
drop midway          | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
end midway           | every    | plain  | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
end midway           | speech   | plain  | 200                           | -                     | 1     | counted | ok          | not asked
end midway           | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
end midway           | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
half an event        | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
half an event        | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
error event midway   | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
error event midway   | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
invalid JSON         | every    | plain  | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
invalid JSON         | every    | stream | 200, then stream_interrupted  | APIError              | 1     | counted | interrupted | can't
invalid JSON         | speech   | stream | 200, then stream_interrupted  | -                     | 1     | counted | interrupted | can't
invalid JSON at once | every    | stream | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
HTML                 | every    | both   | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
HTML with 502        | every    | both   | 502 upstream_error            | InternalServerError   | 3     | nothing | error       | answers
empty                | every    | both   | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
an error with 200    | every    | plain  | 502 upstream_error            | InternalServerError   | 3     | nothing | error       | answers
an error with 200    | every    | stream | 502 upstream_error            | InternalServerError   | 3     | hold    | error       | answers
an error with 200    | images edits transcriptions speech | stream | 502 upstream_error | InternalServerError | 3 | nothing | error | answers
slow tokens          | every    | both   | 200                           | -                     | 1     | usage   | ok          | not asked
slow tokens          | speech   | plain  | 200                           | -                     | 1     | counted | ok          | not asked
usage missing        | every    | both   | 200                           | -                     | 1     | counted | ok          | not asked
usage of zero        | every    | both   | 200                           | -                     | 1     | counted | ok          | not asked
usage negative       | every    | both   | 200                           | -                     | 1     | counted | ok          | not asked
usage as text        | every    | both   | 200                           | -                     | 1     | counted | ok          | not asked
usage absurd         | every    | both   | 200                           | -                     | 1     | counted | ok          | not asked
usage doubled        | every    | both   | 200                           | -                     | 1     | usage   | ok          | not asked
usage doubled        | speech   | plain  | 200                           | -                     | 1     | counted | ok          | not asked
"""


@dataclass(frozen=True)
class Row:
    fault: str
    endpoint: str
    how: str
    client: str
    sdk: str
    tries: int
    billed: str
    ledger: str
    fallback: str

    @property
    def status(self) -> int:
        return int(self.client[:3])

    @property
    def code(self) -> str | None:
        """Of the error, in the body or in the event that ends a stream; None for an answer or an error without a code."""
        return self.client[3:].removeprefix(", then ").strip() or None

    @property
    def breaks_off(self) -> bool:
        return ", then " in self.client

    @property
    def cut(self) -> bool:
        return self.client.endswith(", then cut")

    @property
    def answered(self) -> bool:
        return self.client == "200"


def rows() -> list[Row]:
    _, *lines = TABLE.strip().splitlines()
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        tries = int(cells.pop(5))
        found.append(Row(*cells[:5], tries, *cells[5:]))
    return found


def row_of(fault: str, endpoint: str, how: str) -> Row:
    """The row that speaks about this case; a row that names the endpoint comes before one for every endpoint."""
    fitting = [one for one in rows() if one.fault == fault and one.how in (how, "both")]
    for name in (endpoint, "every"):
        named = [one for one in fitting if name in one.endpoint.split()]
        if named:
            [row] = named
            return row
    raise LookupError(f"the table has no row for {fault}, {endpoint}, {how}")
