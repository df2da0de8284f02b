"""JSON of unknown origin is a tree of bounded size, or one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.config import StudyError
from qsgd_ray.config.json_text import (
    _DEEPEST,
    _MOST_BYTES,
    _MOST_DIGITS,
    _require_usable,
    _UnusableJsonError,
    parse_json,
)

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)


@given(TREES)
def test_what_json_writes_is_read_back(tree):
    assert parse_json(json.dumps(tree)) == parse_json(json.dumps(tree).encode()) == tree
    _require_usable(tree)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_the_deepest_tree_is_read_and_a_deeper_one_is_not():
    parse_json(nested(_DEEPEST))
    for depth in (_DEEPEST + 1, 2000, 100_000):
        for text in (nested(depth), nested(depth).replace("[", '{"a":[').replace("]", "]}")):
            with pytest.raises(_UnusableJsonError, match="nested deeper than 64"):
                parse_json(text)


@given(st.integers(_MOST_DIGITS - 1, _MOST_DIGITS + 2), st.sampled_from(["", "-"]), st.sampled_from("19"))
def test_numbers_are_refused_by_their_digits_alone_whether_read_or_written(n_digits, sign, digit):
    text = sign + digit * n_digits
    if n_digits <= _MOST_DIGITS:
        assert parse_json(text) == int(text)
        _require_usable({"seed": int(text)})
    else:
        with pytest.raises(_UnusableJsonError, match=f"a number of {n_digits} digits"):
            parse_json(text)
        with pytest.raises(StudyError, match=r"^seed: got a number of about 4\d\d digits; allowed: plain values"):
            _require_usable({"seed": int(text)})


UNUSABLE = [
    ("1" * 5000, "a number of 5,000 digits"),
    ('{"a": -' + "1" * 5000 + "}", "a number of 5,000 digits"),
    ("[" * 10**6, "nested deeper than 64"),
    ('"\\ud800"', "which is no UTF-8 text"),
    ('{"\\udfff": 1}', "which is no UTF-8 text"),
    (b" " * (_MOST_BYTES + 1), "67,108,865 bytes, of 67,108,864 at most"),
]
NO_JSON = [
    (b"\xff{}", "no UTF-8 at byte 0"),
    ('{"name": "x"}'.encode("utf-16"), "no UTF-8 at byte 0"),
    ("[" * 10, "Expecting value"),
    ("[1", "Expecting ',' delimiter"),
    ("", "Expecting value"),
    ("NaN", "NaN is no JSON"),
    ("[Infinity]", "Infinity is no JSON"),
    (b'{"a": -Infinity}', "-Infinity is no JSON"),
]


@pytest.mark.parametrize(("text", "said"), UNUSABLE + NO_JSON)
def test_what_no_file_of_ours_holds_is_one_line(text, said):
    with pytest.raises(ValueError, match=said) as error:
        parse_json(text)
    assert len(str(error.value)) < 120
    assert "\n" not in str(error.value)
    assert isinstance(error.value, _UnusableJsonError) == ((text, said) in UNUSABLE)


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ([0, "\ud800"], r"1: got '\ud800', which is no UTF-8 text"),
        ({"a": {"b": {"c": {"\udfff": 1}}}}, r"a.b.c: got the name '\udfff', which is no UTF-8 text"),
        (json.loads("[" * 70 + "]" * 70), "0.0.0: got JSON nested deeper than 64"),
        (10**400, "study: got a number of about 400 digits"),
    ],
)
def test_plain_values_that_no_settings_hold_are_refused_with_their_path(tree, line):
    with pytest.raises(StudyError) as error:
        _require_usable(tree)
    assert str(error.value) == f"{line}; allowed: plain values in at most 64 levels"
