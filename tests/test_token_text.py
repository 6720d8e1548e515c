"""Any token is written as visible text on one line, and is got back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.token_text import read, write, write_among_marks

HOSTILE = (
    *(b"\t", b"\n", b"\r\n", b"\x0b\x0c\x1c\x1d\x1e", b"\x00", b"\x7f", b"\x85", b""),
    *(b"\xe2\x82", b"\x82\xac", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f"),
    *(b"\\", b"\\n", b"\\\\x41", b"\\\n", b'"', b"'", "“”".encode(), "\u200b\u2060".encode()),
    *("\u2028\u2029\ufeff\u202e".encode(), b"<start>", b"<end>", b"</s>", b"<|im_end|>"),
    *("«».«9:".encode(), "«9: tea»".encode(), "\\«".encode(), b"unknown", b"10", b" 10"),
)
tokens = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(HOSTILE), max_size=3).map(b"".join),
)


@given(tokens)
@pytest.mark.parametrize("writer", [write, write_among_marks])
def test_any_token_comes_back_from_one_visible_line(writer: object, token: bytes) -> None:
    assert callable(writer)
    text = writer(token)
    assert read(text) == token
    assert len(text.splitlines()) <= 1
    assert "\t" not in text
    assert all(
        character == " " or character.isprintable() or character.isspace() for character in text
    )


@given(tokens)
def test_reserved_markup_is_never_written(token: bytes) -> None:
    text = write(token)
    assert not any(tag in text for tag in ("<start>", "<end>", "</s>", "<|im_end|>"))


@given(tokens)
def test_marks_in_a_text_are_all_escaped(token: bytes) -> None:
    text = write_among_marks(token)
    assert text.replace("\\\\", "").count("«") == text.replace("\\\\", "").count("\\«")
    assert text.replace("\\\\", "").count("»") == text.replace("\\\\", "").count("\\»")


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (b" tea", " tea"),
        (b"a\tb\nc", "a\\tb\\nc"),
        (b"C:\\new", "C:\\\\new"),
        (b"\xe2\x82", "\\xe2\\x82"),
        ("naïve 茶".encode(), "naïve 茶"),
        ("\u200b".encode(), "\\xe2\\x80\\x8b"),
        (b"<div>", "<div>"),
        (b"<|endoftext|>", "\\x3c|endoftext|>"),
    ],
)
def test_how_tokens_look(token: bytes, text: str) -> None:
    assert write(token) == text
