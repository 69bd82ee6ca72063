"""``python -m benchmarks [NAME ...] [--write]``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from benchmarks import report
from benchmarks.failure import BenchmarkFailed

#: name -> what it measures; each is a module of this package with ``run(options) -> Section``
BENCHMARKS = {
    "data_plane": "one data-plane process against a bare relay: requests/s, latency, CPU per request",
    "latency": "what the data plane adds to a provider that takes 50 ms",
    "streams": "thousands of streams at once: delay of each piece, memory of each stream",
    "mixed": "small requests beside prompts of a megabyte",
    "hangup": "how soon a provider feels that a client hung up",
    "memory": "resident memory of a data-plane process over 200,000 calls",
    "ingest": "calls/s from journals into the database, on SQLite and on PostgreSQL",
    "export": "a million calls as CSV over HTTP: seconds and memory, on PostgreSQL and SQLite",
    "publish": "publishing 1,000 prompts with 20,000 versions: seconds, time to effect, and the pages",
    "inbox": "the reviewers' inbox with 10,000 actions that wait, on SQLite and PostgreSQL",
    "decisions": "from a reviewer's decision to the first byte of what carries it out, alone and beside 200",
    "runs": "1,000 queued runs with three turns of tools each, with a worker killed every 10 s",
    "alerting": "seconds from the first failed call to the message at on-call's own service",
    "idle": "memory and start times of ./dev run",
}
#: Only run when they are named: they take long, or install what other people made.
OPTIONAL = {
    "dashboards": "pages of figures over ten million calls, which take a quarter of an hour to make",
    "peers": "requests/s beside other gateways (LiteLLM, Portkey), which it installs for the time being",
}


def main() -> int:
    known = BENCHMARKS | OPTIONAL
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="benchmarks:\n" + "\n".join(f"  {name:12} {what}" for name, what in known.items()),
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="which ones; all but the last two if none is named"
    )
    parser.add_argument("--rounds", type=int, help="how often each measurement is repeated")
    parser.add_argument("--seconds", type=float, help="how long one measurement lasts")
    parser.add_argument(
        "--nice",
        type=int,
        default=0,
        help="change the priority; below 0 (as root) on a machine that is busy otherwise",
    )
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    # Servers that a benchmark starts run as users run them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Inherited by everything that is started.
    os.nice(given.nice)
    failed = []
    for name in given.names or BENCHMARKS:
        print(f"\n== {name}: {known[name]}\n", flush=True)
        command = " ".join(["./dev bench", name, *_figures(given)])
        try:
            section = importlib.import_module(f"benchmarks.{name}").run(
                report.Options(given.rounds, given.seconds)
            )
        except BenchmarkFailed as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            failed.append(name)
            continue
        print(section.text(command), flush=True)
        if given.write:
            report.write(section, command)
    if failed:
        print(
            f"\nThese benchmarks failed, so that they have no figures: {', '.join(failed)}", file=sys.stderr
        )
    return bool(failed)


def _figures(given: argparse.Namespace) -> list[str]:
    return [
        f"--{name} {value:g}" for name in ("rounds", "seconds", "nice") if (value := getattr(given, name))
    ]


if __name__ == "__main__":
    sys.exit(main())
