"""Taking a key out of text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.model.mask import KeyMask


@pytest.mark.parametrize(
    ("values", "text", "masked"),
    [
        ([{"42"}], "row 42 (id=42) of 420, not 1421", "row *** (id=***) of 420, not 1421"),
        ([{"ada@x.org"}], "ADA@X.ORG and Ada@x.org", "*** and ***"),
        ([{"ada@x.org"}], "GET /people/ada%40x.org", "GET /people/***"),
        ([{'a "b"'}], '{"id":"a \\"b\\""}', '{"id":"***"}'),
        ([{"zoë"}], '{"id": "zo\\u00eb"}', '{"id": "***"}'),
        ([{"EU"}, {"7"}], "seat 7 in EU is taken", "seat *** in *** is taken"),
        ([{"EU"}, {"7"}], "no seat in EU", "no seat in EU"),
        ([{"42", "42.0"}], "42.0 or 42", "*** or ***"),
        ([{"a.c"}], "abc", "abc"),
    ],
)
def test_texts(values: list[set[str]], text: str, masked: str) -> None:
    assert KeyMask(values)(text) == masked


@pytest.mark.parametrize(
    ("values", "value", "masked"),
    [
        ([{"42"}], {"keys": [{"id": 42}, {"id": 43}]}, {"keys": [{"id": "***"}, {"id": 43}]}),
        ([{"42"}], {"limit": 42.5, "overrides": ["deletes"]}, {"limit": 42.5, "overrides": ["deletes"]}),
        (
            [{"EU"}, {"7"}],
            [{"region": "EU", "number": 7}, {"region": "EU", "number": 8}],
            [{"region": "***", "number": "***"}, {"region": "EU", "number": 8}],
        ),
        ([{"x"}], ["about x", None, True], ["about ***", None, True]),
    ],
)
def test_json(values: list[set[str]], value: Any, masked: Any) -> None:
    assert KeyMask(values).inside(value) == masked


WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)


@given(WORDS, st.sampled_from([str, quote, quote_plus, json.dumps]), st.sampled_from(["{}", "({})", "a {} b", "'{}'."]))
def test_what_is_written_is_found(key: str, write: Any, frame: str) -> None:
    written = write(key).strip('"')
    assert written not in KeyMask([{key}])(frame.format(written)).replace("***", "")


@given(st.text(max_size=30))
def test_text_without_the_key_stays(text: str) -> None:
    assert KeyMask([{"no such key"}])(text) == text
