"""A mistake is one line that can be read, whatever was given."""

import pickle

import pytest

from idc.errors import IDCError


def test_an_error_says_value_expectation_and_remedy():
    error = IDCError("eps 8", "a number in [0, 1]", "write 8/255")
    assert str(error) == "eps 8: expected a number in [0, 1]; write 8/255"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "given", [("x" * 9000, "b", "c"), ("a", "x y" * 900, "c"), ("a", "b", "x" * 900), ("x" * 400, "y" * 400, "z" * 400)]
)
def test_an_error_is_a_line_of_500_characters_at_most(given):
    text = str(IDCError(*given))
    assert len(text) <= 500
    assert "\n" not in text
    assert ": expected " in text
    assert text[0] == given[0][0]
    assert text[-1] == given[2][-1]
