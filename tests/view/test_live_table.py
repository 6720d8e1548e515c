"""A token table as people type it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from neuron_explainer.records import TokenTable
from neuron_explainer.view.contract import Unavailable
from neuron_explainer.view.live_table import parse, written

_ANY = 1 << 30
_TOKENS = some.binary(max_size=12) | some.text(max_size=6).map(lambda text: text.encode())
_VALUES = some.floats(-1e5, 1e5, width=32)
_KEYS = some.tuples(some.none() | _TOKENS, _TOKENS)


@given(some.dictionaries(_KEYS, _VALUES, min_size=1, max_size=8), _VALUES)
def test_what_is_written_is_read_back_in_single_precision(
    rows: dict[tuple[bytes | None, bytes], float], otherwise: float
) -> None:
    previous, tokens = zip(*rows, strict=True)
    table = TokenTable(previous, tokens, tuple(rows.values()), (0.0,) * len(rows), otherwise)
    text, left_out = written(table, _ANY)
    again = parse(text)
    assert left_out == 0
    assert (again.previous, again.tokens) == (previous, tokens)
    assert np.float32(again.otherwise) == np.float32(otherwise)
    assert np.array_equal(np.array(again.activations, "f4"), np.array(table.activations, "f4"))


def test_people_may_write_it_in_several_ways() -> None:
    text = '# numbers\n\n " +" = 7.5\n"of"   " the"\t9\n"\\"" : -1\n"\\xff" 2\nOtherwise 0.1'
    table = parse(text)
    assert table.tokens == (b" +", b" the", b'"', b"\xff")
    assert table.previous == (None, b"of", None, None)
    assert table.activations == (7.5, 9.0, -1.0, 2.0)
    assert table.otherwise == 0.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the 7", 'line 1 of the table: write "token" number'),
        ('"a" 1\n"a" 2', "line 2 of the table: this token has a row already"),
        ('"a" many', "line 1 of the table: “many” is no number"),
        ('"a" nan', "line 1 of the table: the number must lie between"),
        ('"a" 1e9', "line 1 of the table: the number must lie between"),
        ("otherwise 1", "the table has no rows"),
        ("", "the table has no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(Unavailable) as refused:
        parse(text)
    assert str(refused.value).startswith(said)


def test_a_long_table_is_cut_after_a_whole_row() -> None:
    table = TokenTable((None,) * 100, tuple(b"%d" % n for n in range(100)), (1.0,) * 100, (), 0.5)
    text, left_out = written(table, 200)
    again = parse(text)
    assert len(text) <= 200
    assert len(again.tokens) == 100 - left_out > 0
    assert again.otherwise == 0.5
