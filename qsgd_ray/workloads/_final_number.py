r"""The final number of an answer: a text comes in; the number behind its `####` goes out, in one notation.

A number is what this grammar reads, to the end of its line, in the digits 0 to 9:

    answer   = { "**" | "$" | "\(" | "\[" | "\boxed{" } signed  rest
    signed   = [sign] [currency] [sign] number        at most one sign; currency: $ \$ € £ ¥ ₹
    number   = mixed | fraction | scaled | power | decimal
    mixed    = digits " " proper fraction of digits   3 1/4 is 3.25; also 3½ and 3\frac{1}{4}
    fraction = \frac{decimal}{decimal}, \dfrac, \tfrac, \frac12 | ½ and the like
    scaled   = decimal ("e" | times "10^") exponent   1.5e3, 1.5 x 10^3, 1.5 \times 10^{3}
    power    = decimal ("^" | "**") exponent          10^5, 10^{5}, 10⁵; -2^2 is -4
    exponent = [sign] digits                          braces around it may be there
    decimal  = digits ["." digits] | "." digits       thousands: 1,234,567 and 1{,}234 and a narrow or fixed space
    rest     = a unit, a percent sign, closing marks, the end of a sentence: anything that does not go on the number

The rest goes on the number where it starts with a digit, or with an operator, a comma or a colon and then a digit, or
with a power, a root or another command of LaTeX. Then there is no number: neither in `3, 4`, `12:30` and `1,23` nor in
`2^x` and `2\sqrt{3}`, nor in `13/4` and `13.0/4`: a quotient that was left to do is no final number, as a product is
none. Percent signs and words are units, which are not read: `12%` and `12 million` are 12.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MARK = "####"
# No answer is longer. Python refuses to read or write integers of more than 4,300 digits.
_MOST_DIGITS = 500

# A narrow space, a fixed one, or LaTeX's, between groups of three digits.
_THOUSANDS = r"(?:,|\{,\}|[\u00a0\u2009\u202f]|\\[,!;:])"
_WHOLE = rf"(?:[1-9][0-9]{{0,2}}(?:{_THOUSANDS}[0-9]{{3}})++(?![0-9])|[0-9]++)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]++)?+|\.[0-9]++)"
_EXPONENT = r"(?:\{\s*+([+-]?[0-9]++)\s*+\}|([+-]?[0-9]++))"
_COMMAND_FRACTION = rf"\\[dt]?frac\s*+(?:\{{\s*+({_DECIMAL})\s*+\}}\s*+\{{\s*+({_DECIMAL})\s*+\}}|([0-9])\s*+([0-9]))"

_OPENING = r"(?:\*\*|\$|\\[(\[]|\\boxed\s*+\{|\s)*+"
_SIGNED = re.compile(rf"{_OPENING}([+-]?)\s*+(?:\\?\$|[€£¥₹])?+\s*+([+-]?)\s*+")
_FORMS = {
    "mixed": re.compile(r"([0-9]++)(?:[ ]++([0-9]++)[ ]?+/[ ]?+([0-9]++)|[ ]*+" + _COMMAND_FRACTION + ")"),
    "fraction": re.compile(_COMMAND_FRACTION),
    "scaled": re.compile(
        rf"({_DECIMAL})(?:[eE]([+-]?[0-9]++)|\s*+(?:[x×*·]|\\times|\\cdot)\s*+10\s*+(?:\^|\*\*)\s*+{_EXPONENT})"
    ),
    "power": re.compile(rf"({_DECIMAL})\s*+(?:\^|\*\*)\s*+{_EXPONENT}"),
    "decimal": re.compile(rf"({_DECIMAL})"),
}
# What goes on a number, behind closing marks: `12 / (`, `12:30`, `3, 4`, `2^x`. Not `12-year`, `$5/hour`, `72.`.
_GOES_ON = re.compile(
    r"(?:\}|\$|\\[)\]])*+(?:\([0-9]|\.[0-9/^*]|[ \t]*+(?:[0-9^√π]|[eE][-+]?[0-9]"
    r"|[-+*/÷×·x_:=<>±~,;'][ \t]*+[-+]?[ \t]*+[(\\$]?[0-9.]|[*/÷×·+][ \t]*+[(\\√π]"
    r"|\\(?![%$)\],;:!\s]|text|mathrm|mbox|quad)))"
)
_LINE = re.compile(rf"(?={MARK}(?!#)\s*([^\n\r#]{{0,{8 * _MOST_DIGITS}}}))")
_ONE_CHARACTER = re.compile("([0-9]+)⁄([0-9]+)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]++")


def final_number(text: str) -> str | None:
    """Return the number behind the first `####` that has one; None: there is none.

    Equal numbers are equal texts: a decimal without needless zeros, or a reduced fraction where no decimal ends.

    Args:
        text: an answer, as GSM8K has them and as models write them.

    Example:
        >>> final_number("#### $-1,234.50."), final_number("#### 3 1/4"), final_number(r"#### \\boxed{\\frac{1}{3}}")
        ('-1234.5', '3.25', '1/3')
        >>> final_number("#### 13/4") is None
        True
    """
    for mark in _LINE.finditer(text):
        value = _value(mark[1])
        if value is not None:
            return _written(value)
    return None


def _value(line: str) -> Fraction | None:
    """Return the number at the start of a line; None: the grammar has none there."""
    line = _plain(line)
    signed = _SIGNED.match(line)
    if signed is None or (signed[1] and signed[2]):
        return None
    line = line[signed.end() :]
    for name, form in _FORMS.items():
        if (match := form.match(line)) and not _goes_on(line[match.end() :]):
            value = _evaluate(name, [part for part in match.groups() if part is not None])
            return -value if value is not None and "-" in (signed[1], signed[2]) else value
    return None


def _plain(line: str) -> str:
    """Write signs, superscripts and fractions of one character (½) in the characters of the grammar."""
    line = _SUPERSCRIPT.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", line)
    for character in set(line) - set(map(chr, range(128))):
        if parts := _ONE_CHARACTER.fullmatch(unicodedata.normalize("NFKC", character)):
            line = line.replace(character, rf"\frac{{{parts[1]}}}{{{parts[2]}}}")
    return line.replace("⁄", "/").replace("∕", "/").replace("−", "-")


def _goes_on(rest: str) -> bool:
    """Return whether what stands behind a number makes it another number, or an expression."""
    return _GOES_ON.match(rest) is not None or rest.lstrip()[:1].isnumeric()


def _evaluate(form: str, parts: list[str]) -> Fraction | None:
    """Return the value of a form from its parts; None: it has none, or is too long."""
    if sum(map(len, parts)) > _MOST_DIGITS:
        return None
    if form == "mixed":
        whole, numerator, denominator = map(_decimal, parts)
        is_proper = "." not in "".join(parts[1:]) and 0 < numerator < denominator
        return whole + numerator / denominator if is_proper else None
    first, second = _decimal(parts[0]), parts[-1]
    if form == "fraction":
        return first / divisor if (divisor := _decimal(second)) else None
    if form == "decimal":
        return first
    exponent = int(second)
    n_digits = abs(exponent) * (len(parts[0]) if form == "power" else 1)
    if n_digits > _MOST_DIGITS or (form == "power" and first == 0 and exponent <= 0):
        return None
    return first**exponent if form == "power" else first * Fraction(10) ** exponent


def _decimal(text: str) -> Fraction:
    whole, _, rest = re.sub(_THOUSANDS, "", text).partition(".")
    return Fraction(int(f"{whole}{rest}"), 10 ** len(rest))


def _written(value: Fraction) -> str:
    """Write a number: as a decimal if one ends, else as a reduced fraction."""
    left, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while left % prime == 0:
            left, power = left // prime, power + 1
        places = max(places, power)
    if left > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    point = len(digits) - places
    sign, rest = "-" if value < 0 else "", f".{digits[point:]}" if places else ""
    return f"{sign}{digits[:point]}{rest}"
