import pytest

from qsgd_ray.reporting._formatting import MISSING, digits

TEXTS = {0.012345: "0.0123", 999.4: "999", 999.6: "1,000", 32123.0: "32,100", -1234567.0: "-1,230,000", 2e15: "2e+15"}


@pytest.mark.parametrize(("value", "text"), [(None, MISSING), *TEXTS.items()])
def test_three_digits_with_thousands_in_full(value, text):
    assert digits(value) == text
