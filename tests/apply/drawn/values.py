"""What Hypothesis draws a configuration of: names, texts, amounts, times."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from llmops.providers.rules import TOKEN_CLASSES

slugs = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
#: Words that YAML reads as something else when nobody quotes them, and texts that need care.
words = st.one_of(
    st.sampled_from(
        [
            "yes",
            "no",
            "null",
            "~",
            "1e3",
            "0x1f",
            "2024-01-01",
            "1:30",
            "=",
            "<<",
            "*a",
            "&a",
            "- a",
            "#x",
            "'",
            '"',
            "a: b",
        ]
    ),
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], include_characters="äß日😀\u0085\u2028\ufeff"),
        max_size=20,
    ),
)
names = words.filter(str.strip)
amounts = st.integers(0, 10**15).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09d}")
_CENTURY = [datetime.fromisoformat(f"{year}-01-01") for year in (2100, 2200)]
instants = st.datetimes(*_CENTURY).map(lambda at: at.replace(tzinfo=UTC).isoformat())
# The largest that every class may have: 100 USD for one image, second or character, 10,000 for a million tokens.
price_amounts = st.integers(0, 100 * 10**9).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09d}")
prices = st.dictionaries(
    st.sampled_from([name for name, _ in TOKEN_CLASSES]),
    st.one_of(
        price_amounts,
        st.lists(
            st.fixed_dictionaries({"usd": price_amounts, "from": instants}),
            max_size=2,
            unique_by=lambda row: row["from"],
        ),
        st.tuples(price_amounts, price_amounts, instants).map(
            lambda row: [{"usd": row[0]}, {"usd": row[1], "from": row[2]}]
        ),
    ),
    max_size=3,
)
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**40), 2**40), words,
        st.floats(-(10**6), 10**6, allow_nan=False).map(lambda number: round(number, 4) + 0.0),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
limits = st.fixed_dictionaries(
    {},
    optional={name: st.integers(1, 10**6) for name in ("rpm", "tpm", "concurrency")},
)
kept_texts = st.fixed_dictionaries(
    {},
    optional={
        "keep_texts_percent": st.integers(0, 100),
        "keep_texts_days": st.integers(1, 90),
        "keep_texts_readable": st.booleans(),
    },
)
answers = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\täß日😀\u0085\u2028\ufeff"),
    max_size=20,
)
milliseconds = st.integers(100, 3_600_000).map(lambda ms: ms / 1000)
