"""The token lookup explainer, on neurons whose tables are planted."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.lookup import ContextLookup, TokenLookup
from neuron_explainer.records import (
    Explanation,
    NeuronId,
    NeuronRecord,
    Record,
    Split,
    TokenRows,
    TokenTable,
)

Entry = tuple[float, int]  # mean activation, occurrences
POOL = None  # the row of all tokens that have none of their own


def _record(
    tokens: Sequence[bytes], activations: Sequence[float], split: Split | None = "train"
) -> Record:
    values = np.array(activations, np.float32)
    scored = np.ones(len(tokens), np.bool_)
    kind: Literal["top", "quantile"] = "top" if split else "quantile"
    return Record(tuple(tokens), values, scored, kind, split, sequence=0)


def _rows(
    plain: Mapping[bytes | None, Entry], pairs: Mapping[tuple[bytes, bytes], Entry] | None = None
) -> TokenRows:
    keys = [(None, token) for token in plain] + list(pairs or {})
    vocabulary = tuple(sorted({name for key in keys for name in key if name is not None}))
    entries = [*plain.values(), *(pairs or {}).values()]

    def places(names: Sequence[bytes | None]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array(
            [-1 if name is None else vocabulary.index(name) for name in names], np.int32
        )

    return TokenRows(
        vocabulary,
        places([previous for previous, _ in keys]),
        places([token for _, token in keys]),
        np.array([mean for mean, _ in entries], np.float32),
        np.array([count for _, count in entries], np.int32),
    )


def _neuron(rows: TokenRows | None, records: Sequence[Record] | None = None) -> NeuronRecord:
    shown = [_record([b"a", b"b"], [0.0, 4.0])] if records is None else records
    return NeuronRecord(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), tuple(shown), None, rows)


def _explain(explainer: TokenLookup, neuron: NeuronRecord) -> Explanation:
    return asyncio.run(explainer.explain(neuron))


def _table(explainer: TokenLookup, neuron: NeuronRecord) -> TokenTable:
    table = _explain(explainer, neuron).table
    assert table is not None
    return table


# " rare" is the loudest, but " often" makes most of the variance
PLANTED = {b" rare": (4.0, 5), b" often": (2.0, 400), b" dull": (0.1, 500), POOL: (0.1, 9000)}


def test_rows_are_chosen_by_the_variance_they_explain_not_by_the_highest_means() -> None:
    neuron = _neuron(_rows(PLANTED))
    assert _table(TokenLookup(1), neuron).tokens == (b" often",)
    assert _table(TokenLookup(1, "mean"), neuron).tokens == (b" rare",)


def test_a_quiet_token_is_chosen_when_it_stands_out() -> None:
    loud = {b" usual": (2.0, 500), b" never": (-1.0, 300), b" bit": (2.1, 20), POOL: (2.0, 9000)}
    assert _table(TokenLookup(1), _neuron(_rows(loud))).tokens == (b" never",)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_table_has_the_rows_asked_for_and_never_the_pool(size: int) -> None:
    table = _table(TokenLookup(size), _neuron(_rows(PLANTED)))
    assert len(table.tokens) == min(size, 3)
    assert len(table.previous) == len(table.activations) == len(table.shares) == len(table.tokens)
    assert list(table.activations) == sorted(table.activations, reverse=True)


def test_the_whole_table_holds_every_named_token() -> None:
    table = _table(TokenLookup("all"), _neuron(_rows(PLANTED)))
    assert set(table.tokens) == {b" rare", b" often", b" dull"}


def test_activations_are_told_on_the_scale_of_the_train_records_maximum() -> None:
    table = _table(TokenLookup("all"), _neuron(_rows(PLANTED)))
    scaled = dict(zip(table.tokens, table.activations, strict=True))
    assert scaled[b" often"] == pytest.approx(10 * 2.0 / 4.0)
    assert table.otherwise == pytest.approx(10 * 0.1 / 4.0)


def test_otherwise_is_the_mean_of_all_that_is_not_in_the_table() -> None:
    table = _table(TokenLookup(1), _neuron(_rows(PLANTED)))
    rest = (4.0 * 5 + 0.1 * 500 + 0.1 * 9000) / (5 + 500 + 9000)
    assert table.otherwise == pytest.approx(10 * rest / 4.0, rel=1e-5)


def test_shares_are_of_the_positive_activation_in_the_corpus() -> None:
    rows = _rows({b"a": (1.0, 300), b"b": (1.0, 100), b"c": (-5.0, 50), POOL: (-0.1, 10)})
    table = _table(TokenLookup("all"), _neuron(rows))
    shares = dict(zip(table.tokens, table.shares, strict=True))
    assert shares == pytest.approx({b"a": 0.75, b"b": 0.25, b"c": 0.0})


PAIRS = {(b" New", b" York"): (4.0, 100), (b" in", b" York"): (0.4, 100)}
CITY = {b" York": (1.2, 300), b" New": (0.2, 200), POOL: (0.1, 9000)}


def test_rows_for_a_token_after_another_are_left_out_without_context() -> None:
    table = _table(TokenLookup("all"), _neuron(_rows(CITY, PAIRS)))
    assert set(table.previous) == {None}
    assert set(table.tokens) == {b" York", b" New"}


def test_with_context_the_pair_that_adds_most_goes_first() -> None:
    neuron = _neuron(_rows(CITY, PAIRS))
    table = _table(ContextLookup(2), neuron)
    chosen = set(zip(table.previous, table.tokens, strict=True))
    assert chosen == {(b" New", b" York"), (None, b" York")}
    assert "“ York” after “ New”" in _explain(ContextLookup(2), neuron).text


def test_a_pair_that_its_token_already_explains_is_not_chosen() -> None:
    rows = _rows(
        {b" York": (3.0, 300), b" old": (1.0, 100), POOL: (0.1, 9000)},
        {(b" New", b" York"): (3.0, 200)},
    )
    table = _table(ContextLookup(2), _neuron(rows))
    assert set(table.previous) == {None}


@pytest.mark.parametrize(
    "records",
    [
        [],
        [_record([b"a", b"b"], [0.0, 0.0])],
        [_record([b"a", b"b"], [-1.0, -0.5])],
        [_record([b"a", b"b"], [0.0, 4.0], "valid"), _record([b"a"], [4.0], None)],
    ],
    ids=["no records", "zero", "negative", "active only where it may not look"],
)
def test_a_neuron_that_is_never_active_in_train_fails_and_says_so(records: list[Record]) -> None:
    with pytest.raises(NeuronFailure, match="no train record") as caught:
        _explain(TokenLookup(), _neuron(_rows(PLANTED), records))
    assert caught.value.cause == "never-active"


@pytest.mark.parametrize("rows", [None, _rows({})], ids=["no table", "an empty table"])
def test_without_a_token_table_there_is_no_explanation(rows: TokenRows | None) -> None:
    with pytest.raises(NeuronFailure, match="no token table") as caught:
        _explain(TokenLookup(), _neuron(rows))
    assert caught.value.cause == "no-token-table"


def test_context_needs_a_context_table_and_says_how_to_get_one() -> None:
    with pytest.raises(NeuronFailure, match="--context-table") as caught:
        _explain(ContextLookup(), _neuron(_rows(PLANTED)))
    assert caught.value.cause == "no-context-table"


def test_the_sentence_names_the_loudest_tokens_their_share_and_the_quietest() -> None:
    text = _explain(TokenLookup("all"), _neuron(_rows(PLANTED))).text
    assert text.startswith("Fires on “ often” (")
    assert text.index("5.0") < text.index("45%") < text.index("“ rare” (") < text.index("10.0")
    assert text.endswith(".")
    quiet = {b" loud": (4.0, 100), b" never": (-1.0, 100), POOL: (0.1, 9000)}
    assert "least on “ never”" in _explain(TokenLookup("all"), _neuron(_rows(quiet))).text


def test_the_sentence_counts_what_it_does_not_name() -> None:
    many: dict[bytes | None, Entry] = {f" t{n}".encode(): (2.0 + n / 100, 50) for n in range(20)}
    text = _explain(TokenLookup("all"), _neuron(_rows(many | {POOL: (0.0, 9000)}))).text
    assert " and 14 more (" in text


@pytest.mark.parametrize("token", [b"\x1b[31m", b"\n", b"\xff", "\u202e".encode(), b"{x}", b"%s"])
def test_the_sentence_is_one_harmless_line_whatever_the_tokens(token: bytes) -> None:
    explanation = _explain(TokenLookup(), _neuron(_rows({token: (3.0, 90), POOL: (0.0, 9000)})))
    assert explanation.text.isprintable()
    assert explanation.table is not None
    assert explanation.table.tokens == (token,)


def test_a_neuron_that_no_token_moves_says_so() -> None:
    flat: dict[bytes | None, Entry] = {b" a": (0.5, 100), POOL: (0.5, 9000)}
    assert "Fires on no token" in _explain(TokenLookup("all"), _neuron(_rows(flat))).text


@pytest.mark.parametrize("size", [0, -1, "some", "ALL", 2.5, None])
def test_a_table_size_is_a_number_or_all(size: object) -> None:
    with pytest.raises(ConfigError, match="give a number or 'all'"):
        TokenLookup(size)  # type: ignore[arg-type]


def test_there_are_two_ways_to_choose_rows() -> None:
    with pytest.raises(ConfigError, match="by 'variance' or 'mean', not 'random'"):
        TokenLookup(choose="random")  # type: ignore[arg-type]
