import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.workloads._final_number import final_number

NUMBERS = {
    "so 5 + 10 = 15\n#### 15": "15",
    "####15": "15",
    "##### 15": "15",
    "#### 1,234,567": "1234567",
    "#### $1,234.50.": "1234.5",
    "#### 72.": "72",
    "#### 72...": "72",
    "#### 15.0": "15",
    "#### 007": "7",
    "#### .5": "0.5",
    "#### -3": "-3",
    "#### \N{MINUS SIGN}3": "-3",
    "#### +3": "3",
    "#### -$3.50": "-3.5",
    "#### $-3": "-3",
    "#### -0.0": "0",
    "#### 12 eggs and 3 more": "12",
    "#### 12, since 3 are left": "12",
    "#### 12. 3 are left": "12",
    "#### 12-year": "12",
    "#### $5/hour": "5",
    "#### 12%": "12",
    r"#### 12\%": "12",
    "#### no\n#### 7": "7",
    "#### 7\n#### 8": "7",
    "#### 3, 4\n#### 7": "7",
    "#### 12\n/4": "12",
    "####\n15": "15",
    "#### 123456789012345678901234567890.10": "123456789012345678901234567890.1",
    # Fractions, mixed numbers.
    "#### 3 1/4": "3.25",
    "#### -3 1/4": "-3.25",
    "#### 3½": "3.5",
    "#### -⅓": "-1/3",
    # Powers and exponents.
    "#### 10^5": "100000",
    "#### 10**5": "100000",
    "#### 10⁻³": "0.001",
    "#### 12²": "144",
    "#### 12 m²": "12",
    "#### -2^2": "-4",
    "#### 1.5e3": "1500",
    "#### 1.5 x 10^3": "1500",
    "#### 5e": "5",
    # LaTeX and Markdown.
    r"#### \boxed{12}": "12",
    r"#### $\boxed{\frac{1}{3}}$": "1/3",
    r"#### \(\dfrac{3}{4}\)": "0.75",
    r"#### \frac12": "0.5",
    r"#### 3\frac{1}{4}": "3.25",
    r"#### \$12.50": "12.5",
    r"#### $\$12$": "12",
    r"#### 1{,}234": "1234",
    r"#### 1\,234": "1234",
    "#### 1\N{NARROW NO-BREAK SPACE}234": "1234",
    r"#### 1.5 \times 10^{3}": "1500",
    r"#### 12 \text{ eggs}": "12",
    "#### **15** eggs": "15",
}
NO_NUMBERS = [
    "",
    "the answer is 15",
    "#### fifteen",
    "####",
    "### 15",
    "#### = 15",
    "#### --3",
    # A number of the first digits alone would be another one.
    "#### 13/4",
    "#### 13.0/4",
    "#### 13 / 4",
    "#### 1,250/3",
    "#### 4/2",
    "#### 13⁄4",
    "#### 13/4/5",
    "#### 1/0",
    "#### 3/-4",
    "#### 3 5/4",
    "#### 3 1/4/5",
    "#### 2^x",
    "#### 2^0.5",
    "#### 2^3^2",
    "#### 0^-1",
    "#### 1e5.5",
    "#### 3 x 4",
    "#### 3+4",
    "#### 5 * (3)",
    "#### 7(7)",
    "#### 5 = 5",
    "#### 3, 4",
    "#### 12:30",
    "#### 12-15",
    "#### 1,23",
    "#### 1,2345",
    "#### 0,123",
    "#### 1,234,56",
    "#### 1.234,5",
    "#### 3.4.5",
    "#### 12 345",
    "#### 1_000",
    "#### 0x10",
    "#### 2π",
    r"#### 2\sqrt{3}",
    r"#### \boxed{12}\cdot 5",
    r"#### \frac{1}{2}/3",
    "#### 12３",
    "#### ١٢",
    # Nobody writes out so many digits, and Python refuses to.
    "#### " + "9" * 501,
    "#### " + "9" * 5000,
    "#### 9^999999999",
    "#### 1e-99999",
]


@pytest.mark.parametrize(("text", "number"), NUMBERS.items())
def test_the_number_behind_the_mark(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_none_and_never_the_number_of_its_first_digits(text):
    assert final_number(text) is None


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=10**9)


@st.composite
def forms(draw):
    """An unsigned number in one of the grammar's forms, and its value by arithmetic."""
    first, second = draw(DECIMALS), draw(DECIMALS)
    small, exponent = draw(st.integers(1, 99)), draw(st.integers(-9, 9))
    form = draw(st.sampled_from(["decimal", "grouped", "latex", "mixed", "scaled", "times", "power"]))
    if (form == "latex" and not second) or (form == "power" and not first):
        form = "decimal"
    value = Fraction(first)
    return {
        "decimal": lambda: (f"{first:f}", value),
        "grouped": lambda: (f"{first:,}", value),
        "latex": lambda: (rf"\frac{{{first:f}}}{{{second:,}}}", value / Fraction(second)),
        "mixed": lambda: (f"{int(first)} {small}/{small + 1}", int(first) + Fraction(small, small + 1)),
        "scaled": lambda: (f"{first:f}e{exponent}", value * Fraction(10) ** exponent),
        "times": lambda: (rf"{first:f} \times 10^{{{exponent}}}", value * Fraction(10) ** exponent),
        "power": lambda: (f"{first:f}^{exponent}", value**exponent),
    }[form]()


@given(
    forms(),
    st.sampled_from(["", "-"]),
    st.sampled_from([("", ""), ("$", "$"), (r"\boxed{", "}"), (r"\(", r"\)"), ("**", "**")]),
    st.sampled_from(["", r"\$", "€"]),
    st.sampled_from(["", ".", " eggs", "%", r"\%", ", and 3 more", "\n4"]),
)
def test_every_form_has_the_value_that_arithmetic_gives_it(form, sign, marks, currency, unit):
    text, value = form
    number = final_number(f"#### {marks[0]}{sign}{currency}{text}{marks[1]}{unit}")
    assert number is not None
    assert Fraction(number) == (-value if sign else value)


@given(DECIMALS, DECIMALS, st.sampled_from(["/", " / ", "⁄", "÷"]))
def test_a_quotient_that_was_left_to_do_is_no_number(first, second, slash):
    assert final_number(f"#### {first:,}{slash}{second:f}") is None


GOES_ON = [
    " 7",
    ",7",
    ", 7",
    ":7",
    " * 7",
    "=7",
    " + (7)",
    "/7/7",
    "^7^7",
    "^x",
    "e7.7",
    "./7",
    r"\cdot 7",
    r"\pi",
    "√7",
]


@given(forms(), st.sampled_from(GOES_ON))
def test_a_number_that_goes_on_is_none(form, more):
    assert final_number(f"#### {form[0]}{more}") is None


@given(DECIMALS)
def test_equal_numbers_are_equal_texts(number):
    written = final_number(f"#### {number:,}")
    assert written == final_number(f"#### {number:f}") == final_number(f"#### {written}")
    assert type(number)(written) == number


@given(st.text() | st.text(r"0123456789.,/^-+* x$%{}()[]\:=#½²efract_boxed" + "\n\N{NARROW NO-BREAK SPACE}"))
def test_no_text_is_too_strange_and_what_is_written_is_read_again(text):
    number = final_number(f"#### {text}")
    assert number is None or final_number(f"#### {number}") == number


LONG = {
    "marks": "#" * 99_999,
    "answers": "#### " * 20_000,
    "answers with words": "#### no " * 20_000,
    "groups": "#### " + "1," * 50_000,
    "spaces": "#### 1" + " " * 99_999 + "/",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_text_is_read_in_time(text):
    began = time.perf_counter()
    final_number(text)
    assert time.perf_counter() - began < 5
