from qsgd_ray.workloads._problem import question_key


def test_spaces_and_capitals_make_no_other_question():
    assert question_key(" How  many\neggs? ") == question_key("how many EGGS?") != question_key("how many legs?")
