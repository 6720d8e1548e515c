"""Which record is used for what: fixed once, by position, before anything is explained.

Both lists are in their stored order, the top list by descending maximum. Neighbours in it are
alike, so the splits take turns instead of taking ranges, as in the reference code of Bills et al.
2023.
"""

from typing import Literal

from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.records import SPLITS, Split

Rule = Literal["balanced", "reference"]
Positions = tuple[int, ...]

_TOP_STRIDE = len(SPLITS)
_RANDOM_STRIDE = len(SPLITS) - 1  # train shows top records only


def assign_splits(
    n_top: int, n_random: int, per_split: int | None = None, rule: Rule = "balanced"
) -> dict[Split, tuple[Positions, Positions]]:
    """For each split, positions in the list of top records and in the list of random records.

    `per_split` is how many of either list a split gets. Without it, "balanced" gives each split as
    many random as top records (as many as the scarcer list allows, so none when a list is empty);
    "reference" counts the lists separately, which breaks the 1:1 ratio.

    Raises DataError when there are too few records for `per_split`, ConfigError when it is not
    positive.
    """
    top, random = n_top // _TOP_STRIDE, n_random // _RANDOM_STRIDE
    if per_split is not None:
        _check(n_top, n_random, per_split)
        top = random = per_split
    elif rule == "balanced":
        top = random = min(top, random)
    return {
        split: (
            tuple(range(turn, _TOP_STRIDE * top, _TOP_STRIDE)),
            tuple(range(turn - 1, _RANDOM_STRIDE * random, _RANDOM_STRIDE)) if turn else (),
        )
        for turn, split in enumerate(SPLITS)
    }


def _check(n_top: int, n_random: int, per_split: int) -> None:
    if per_split < 1:
        raise ConfigError(f"{per_split} records per split: give at least 1")
    for kind, have, stride in (("top", n_top, _TOP_STRIDE), ("random", n_random, _RANDOM_STRIDE)):
        if have < stride * per_split:
            raise DataError(
                f"{per_split} {kind} records per split need {stride * per_split} {kind} records, "
                f"there are {have}: collect more or ask for at most {have // stride} per split"
            )
