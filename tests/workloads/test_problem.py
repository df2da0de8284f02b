import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.workloads._problem import final_number, question_key


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 5 + 10 = 15\n#### 15", "15"),
        ("####15", "15"),
        ("#### 1,234,567", "1234567"),
        ("#### $1,234.50.", "1234.5"),
        ("#### 72.", "72"),
        ("#### 15.0", "15"),
        ("#### 007", "7"),
        ("#### .5", "0.5"),
        ("#### -3", "-3"),
        ("#### -$3.50", "-3.5"),
        ("#### $-3", "-3"),
        ("#### -0.0", "0"),
        ("#### 12 eggs and 3 more", "12"),
        ("#### 12%", "12"),
        ("#### no\n#### 7", "7"),
        ("#### 7\n#### 8", "7"),
        ("#### 123456789012345678901234567890.10", "123456789012345678901234567890.1"),
        ("the answer is 15", None),
        ("#### fifteen", None),
        ("####", None),
        ("### 15", None),
        ("#### 13/4", None),
        ("#### 10^5", None),
        ("", None),
    ],
)
def test_the_number_behind_the_mark(text, number):
    assert final_number(text) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_equal_numbers_are_equal_texts(number):
    written = final_number(f"#### {number:,}")
    assert written == final_number(f"#### {number:f}") == final_number(f"#### {written}")
    assert type(number)(written) == number


@given(st.text())
def test_no_text_is_too_strange(text):
    found = final_number(f"#### {text}")
    assert found is None or final_number(f"#### {found}") == found


def test_spaces_and_capitals_make_no_other_question():
    assert question_key(" How  many\neggs? ") == question_key("how many EGGS?") != question_key("how many legs?")
