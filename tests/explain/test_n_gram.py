"""Token patterns found by asking the subject."""

from collections.abc import Callable, Sequence

import pytest

from neuron_explainer.explain.n_gram import (
    NGramTrie,
    Pattern,
    Sample,
    build_n_gram_trie,
)

PADDING = 0


def _sample(text: str, position: int, activation: float = 1.0) -> Sample:
    return Sample(tuple(text), tuple(map(ord, text)), position, activation)


def _batch(
    fires: Callable[[Sequence[int], int], float],
) -> Callable[[Sequence[Sequence[int]]], Sequence[Sequence[float]]]:
    def activate(batch: Sequence[Sequence[int]]) -> Sequence[Sequence[float]]:
        return [[fires(ids, position) for position in range(len(ids))] for ids in batch]

    return activate


def _bigram(ids: Sequence[int], position: int) -> float:
    return 2.0 if ids[position] == ord("b") and position and ids[position - 1] == ord("a") else 0.0


def _gapped(ids: Sequence[int], position: int) -> float:
    """Fires on c two after a, whatever stands between."""
    before = ids[position - 2] if position > 1 else None
    return 3.0 if (before, ids[position]) == (ord("a"), ord("c")) else 0.0


def _always(activation: float) -> Callable[[Sequence[int], int], float]:
    return lambda *_: activation


def test_the_shortest_suffix_that_keeps_the_activation_is_the_pattern() -> None:
    trie = build_n_gram_trie(_batch(_bigram), [_sample("xyab", 3, 2.0)], PADDING)
    assert trie.as_dict() == {"b": {"a": {"<saliency>": 2.0}}}
    assert trie.predict("babab") == [0.0, 0.0, 2.0, 0.0, 2.0]


def test_a_position_that_does_not_matter_is_a_wildcard() -> None:
    trie = build_n_gram_trie(_batch(_gapped), [_sample("xabc", 3, 3.0)], PADDING)
    assert trie.as_dict() == {"c": {"token(*)": {"a": {"<saliency>": 3.0}}}}
    assert trie.predict("azcac") == [0.0, 0.0, 3.0, 0.0, 0.0]


def test_a_neuron_that_fires_anywhere_is_one_wildcard() -> None:
    trie = build_n_gram_trie(_batch(_always(1.0)), [_sample("ab", 1)], PADDING)
    assert trie.as_dict() == {"token(*)": {"<saliency>": 1.0}}
    assert trie.predict("xyz") == [1.0, 1.0, 1.0]


def test_a_pattern_that_padding_breaks_holds_at_the_start_only() -> None:
    def first_b(ids: Sequence[int], position: int) -> float:
        return 1.0 if position == 0 and ids[0] == ord("b") else 0.0

    trie = build_n_gram_trie(_batch(first_b), [_sample("bc", 0)], PADDING)
    assert trie.as_dict() == {"b": {"token(^)": {"<saliency>": 1.0}}}
    assert trie.predict("bb") == [1.0, 0.0]


def test_half_the_activation_counts_as_the_activation() -> None:
    def weaker_alone(ids: Sequence[int], position: int) -> float:
        return (2.0 if position else 1.0) if ids[position] == ord("b") else 0.0

    trie = build_n_gram_trie(_batch(weaker_alone), [_sample("ab", 1, 2.0)], PADDING)
    assert trie.as_dict() == {"b": {"<saliency>": 1.0}}


def test_when_no_suffix_keeps_the_activation_the_whole_context_is_the_pattern() -> None:
    trie = build_n_gram_trie(_batch(_always(0.0)), [_sample("ab", 1, 4.0)], PADDING)
    assert trie.predict("ab") == [0.0, 4.0]
    assert trie.predict("xab") == [0.0, 0.0, 0.0]


def test_a_pattern_found_twice_predicts_the_mean() -> None:
    trie = NGramTrie([Pattern(("a",), False, 1.0), Pattern(("a",), False, 3.0)])
    assert trie.predict("a") == [2.0]


def test_a_dead_end_behind_a_named_token_is_left_for_the_wildcard() -> None:
    patterns = [Pattern(("x", "b", "c"), False, 5.0), Pattern(("a", None, "c"), False, 7.0)]
    trie = NGramTrie(patterns)
    assert trie.predict("xbc")[-1] == 5.0
    assert trie.predict("abc")[-1] == 7.0
    assert trie.predict("zbc")[-1] == 0.0


def test_bytes_are_tokens_too() -> None:
    trie = NGramTrie([Pattern((b"\xff",), False, 1.0)])
    assert trie.predict([b"\xff", b"a"]) == [1.0, 0.0]


def test_no_samples_make_an_empty_trie() -> None:
    trie = build_n_gram_trie(_batch(_bigram), [], PADDING)
    assert trie.as_dict() == {}
    assert trie.predict("ab") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (_sample("ab", 2), "fires at position 2"),
        (_sample("ab", 1, 0.0), "must be positive"),
        (Sample(("a",), (1, 2), 0, 1.0), "1 tokens, 2 ids"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(sample: Sample, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_n_gram_trie(_batch(_bigram), [sample], PADDING)
