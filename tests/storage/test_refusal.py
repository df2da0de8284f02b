"""A refusal of something stored is one printable line of bounded length."""

from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.storage import refused, shown


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
