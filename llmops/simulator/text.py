"""The simulator's prose: made of words that are one token each, so that its length in tokens is known without counting."""

from __future__ import annotations

import json
import re

OPENING = ("Sim", "ulated", " answer", ":")
REFUSAL = ("Sim", "ulated", " refusal", ":", " I", " can", " not", " help", " with", " that", " request", ".")

# Every word (with its blank) and every mark in here is one token of o200k_base; a test counts each beginning again.
_SENTENCES = """
No model was asked, and nothing was sent to a provider.
The text is made from a fixed list of words, so that every token can be counted.
Each call gets the same answer for the same question and the same seed.
A team that runs its calls through one door can see what each of them cost.
The first step is to read the question, and the second is to find the right source.
When a request fails, the next one waits a little longer before it tries again.
Good limits are set before the month begins, and they hold at the end of it.
You can ask for a short answer, or for a long one, and pay for what you get.
Two people should agree before anything that can not be undone is done.
The report shows the cost of each project by day, by model and by customer.
If the price of a model is not known, the call should not be made.
Most answers are short, some are long, and a few of them are wrong.
Check the numbers against the bill, and keep the difference small.
A stream sends one word at a time, so that the reader can start early.
Old keys are taken out of use only after the new ones have been tried.
Write down who changed what, when it was changed, and why.
The test data is small, but it covers the cases that have failed before.
A clear error tells the reader which field is wrong and how to fix it.
The system keeps a record of every call, even when the line is cut.
Please review the plan, and say which part of it you would change first.
Customers like a fast answer, but they trust a correct one.
There is a better way to say this in fewer words.
It works on a small machine as well as on a large one.
The table below the chart has the same numbers in it.
Nothing here should be taken as advice, since it was not written by a model.
Open the page, choose a range of time, and look at the red points first.
Keep the prompt short, give one example, and name the format that you want.
An hour of work today can save a week of work next year.
""".strip().splitlines()
_PIECES = tuple(tuple(re.findall(r" \w+|[^\w\s]", " " + sentence)) for sentence in _SENTENCES)
AS_JSON = {
    piece: json.dumps(piece).encode() for piece in {*OPENING, *REFUSAL, *(p for s in _PIECES for p in s)}
}

_SHORTEST, _SPREAD = 24, 48
_MASK = 2**64 - 1


def words(seed: int, length: int | None = None) -> list[str]:
    """Pieces of one token each: whole sentences (24 to 90 tokens), or exactly ``length`` tokens."""
    wanted = _SHORTEST + seed % _SPREAD if length is None else length
    pieces = list(OPENING)
    state = seed & _MASK
    last = -1
    while len(pieces) < wanted:
        # Knuth's MMIX generator; only its upper bits are used.
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        chosen = (state >> 33) % len(_PIECES)
        if chosen != last:
            pieces += _PIECES[chosen]
            last = chosen
    return pieces if length is None else pieces[:length]
