"""The assignment of records to splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.records import SPLITS
from neuron_explainer.splits import Rule, assign_splits

COUNTS = st.integers(0, 60)
RULES: st.SearchStrategy[Rule] = st.sampled_from(["balanced", "reference"])


@given(COUNTS, COUNTS, RULES)
def test_splits_are_disjoint_and_stay_inside_the_lists(top: int, random: int, rule: Rule) -> None:
    splits = assign_splits(top, random, rule=rule)
    for which, count in ((0, top), (1, random)):
        positions = [position for split in SPLITS for position in splits[split][which]]
        assert len(set(positions)) == len(positions)
        assert all(0 <= position < count for position in positions)


@given(COUNTS, COUNTS, RULES)
def test_each_split_takes_every_fourth_top_and_every_third_random_record(
    top: int, random: int, rule: Rule
) -> None:
    splits = assign_splits(top, random, rule=rule)
    for turn, split in enumerate(SPLITS):
        tops, randoms = splits[split]
        assert all(position % 4 == turn for position in tops)
        assert all(position % 3 == turn - 1 for position in randoms)
        assert len(tops) == len(splits["train"][0])
        assert len(randoms) == (len(splits["valid"][1]) if turn else 0)


@given(COUNTS, COUNTS)
def test_balanced_splits_hold_as_many_top_as_random_records(top: int, random: int) -> None:
    splits = assign_splits(top, random)
    assert all(len(splits[split][0]) == len(splits[split][1]) for split in SPLITS[1:])


def test_train_holds_top_records_only() -> None:
    assert assign_splits(20, 20)["train"] == ((0, 4, 8, 12, 16), ())


@pytest.mark.parametrize(("top", "random", "named"), [(19, 20, "20 top"), (20, 14, "15 random")])
def test_too_few_records_for_a_given_number_are_an_error(top: int, random: int, named: str) -> None:
    with pytest.raises(DataError, match=f"need {named} records.*at most 4 per split"):
        assign_splits(top, random, 5)


def test_a_split_cannot_be_asked_to_be_empty() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        assign_splits(20, 20, 0)
