"""A mistake is one line that can be read, whatever was given."""

import pickle

import pytest
import torch

from idc.errors import IDCError, foreign


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


def test_what_code_of_users_raises_is_named_on_one_short_line_with_its_cause():
    @foreign("mine:f", "a function that works")
    def call():
        raise ValueError("x\n" * 5000)

    with pytest.raises(IDCError, match=r"^mine:f: expected a function that works \(ValueError: x x") as caught:
        call()
    assert len(str(caught.value)) <= 500
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "error",
    [IDCError("a", "b", "c"), KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
     RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)  # fmt: skip
def test_what_is_no_mistake_of_that_code_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, foreign("mine:f", "a function that works"):
        raise error
    assert caught.value is error
