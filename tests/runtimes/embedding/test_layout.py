"""Options of an encoder, and how texts are put into batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding.layout import EncoderOptions, batches


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 600))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    """Padded size stays within the budget; only a text longer than it may stand alone."""
    made = list(batches(lengths, token_budget=budget))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@pytest.mark.parametrize(
    "options",
    [{"pooling": "maximum"}, {"max_tokens": 1}, {"dims": 0}, {"backend": "torch"}, {"precision": "int4"}],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, object]) -> None:
    """A typo in the catalogue does not silently become a default."""
    (name,) = options
    with pytest.raises(ModelUnavailable, match=name):
        EncoderOptions.parse("m", options)


def test_options_of_others_are_left_alone() -> None:
    """The catalogue's entry also carries prefixes, a device and a fingerprint."""
    options = EncoderOptions.parse("m", {"query_prefix": "query: ", "device": "cpu", "pooling": "cls"})
    assert options.pooling == "cls"
