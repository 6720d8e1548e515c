"""Tokens as people see them and as text that comes back."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.tokens import escape, quoted, readable, unescape

HOSTILE = {
    "escape": b"\x1b[31mred\x1b[0m",
    "carriage return": b"a\rb",
    "bell": b"\x07",
    "bidirectional override": "\u202eevil\u202c".encode(),
    "zero width": "a\u200bb\ufeff".encode(),
    "half a character": b"\xe2\x82",
    "an encoded surrogate": b"\xed\xa0\x80",
    "C1 control": b"\xc2\x9b31m",
    "line separator": "\u2028\u2029".encode(),
    "breaks and tabs": b"\n\t\v\f\0\x7f",
    "private use": "\ue000".encode(),
}


@given(st.binary(max_size=40))
def test_any_bytes_come_back_from_their_escaped_text(token: bytes) -> None:
    assert unescape(escape(token)) == token


@given(st.text(max_size=40))
def test_text_without_backslashes_is_its_own_escape(text: str) -> None:
    text = text.replace("\\", "/").encode("utf-8", "replace").decode()
    assert escape(text.encode()) == text


@given(st.binary(max_size=40))
def test_what_is_readable_controls_nothing(token: bytes) -> None:
    for character in readable(token):
        assert unicodedata.category(character)[0] != "C"
        assert character not in "\u2028\u2029"


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tokens_become_one_harmless_line(token: bytes) -> None:
    shown = readable(token)
    shown.encode("utf-8")
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()


def test_breaks_and_tabs_have_symbols_and_other_controls_their_number() -> None:
    assert readable(b"a\nb\tc\rd") == "a⏎b⇥c␍d"
    assert readable(b"\x1b[0m\xff") == "\\x1b[0m\\xff"
    assert readable("\u202e".encode()) == "\\u202e"


def test_a_lone_backslash_in_foreign_text_stands_for_itself() -> None:
    assert unescape("a\\b \\xZZ") == b"a\\b \\xZZ"
    assert unescape(escape(b"\\x41")) == b"\\x41"


def test_quotation_marks_show_where_a_token_begins() -> None:
    assert quoted(b" the") == "“ the”"
