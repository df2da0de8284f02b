"""JSON of unknown origin is a tree of bounded size, or one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.storage import parse_json, refused, shown
from qsgd_ray.storage.json_text import _MOST_BYTES, _MOST_DEPTH

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)


@given(TREES)
def test_what_json_writes_is_read_back(tree):
    assert parse_json(json.dumps(tree)) == parse_json(json.dumps(tree).encode()) == tree


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_the_deepest_tree_is_read_and_a_deeper_one_is_not():
    parse_json(nested(_MOST_DEPTH))
    for depth in (_MOST_DEPTH + 2, 2000, 100_000):
        for text in (nested(depth), nested(depth).replace("[", '{"a":[').replace("]", "]}")):
            with pytest.raises(ValueError, match="levels deep"):
                parse_json(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1" * 5000, "an integer of 5,000 digits"),
        ('{"a": -' + "1" * 5000 + "}", "digits"),
        (b"\xff{}", "no UTF-8 at byte 0"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ("[" * 10, "Expecting value"),
        ("", "Expecting value"),
        (b" " * (_MOST_BYTES + 1), "bytes, of"),
    ],
)
def test_what_no_file_of_ours_holds_is_one_line(text, said):
    with pytest.raises(ValueError, match=said) as error:
        parse_json(text)
    assert len(str(error.value)) < 120
    assert "\n" not in str(error.value)


@given(st.text(), st.text(), st.text(min_size=1))
def test_a_refusal_is_one_printable_line_of_at_most_300_characters(place, problem, allowed):
    for factor in (1, 1000):
        text = f"qsgd-ray: {refused(place * factor, problem * factor, allowed * factor)}"
        assert len(text) <= 300
        assert text.isprintable()


def test_of_a_long_place_the_end_is_shown_and_of_others_both_ends():
    text = str(refused("/very/long" * 100 + "/trials/x.parquet", "b" * 200, "c"))
    assert "/trials/x.parquet, bbb" in text
    assert text.startswith("DIR: got ...")
    assert shown("a" * 50 + "z" * 50, 20) == "aaaaaaaa ... zzzzzzz"
