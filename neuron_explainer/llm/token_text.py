"""Tokens of arbitrary bytes as the texts and offsets of `Logprobs`."""

from collections.abc import Sequence


def texts_and_offsets(tokens: Sequence[bytes], text: str) -> tuple[list[str], list[int] | None]:
    """Each token as text and, unless the tokens spell `text`, where in it each begins.

    A special token in front is no part of the text, nor is the space that SentencePiece puts there:
    they are left out of the token's text. A token that begins inside a character is placed beyond
    the text's end.
    """
    whole = text.encode()
    kept = _without_front(tokens, whole)
    texts = [token.decode(errors="replace") for token in kept]
    if "".join(texts) == text:
        return texts, None
    starts = _character_starts(text)
    offsets, cursor = [], 0
    for token in kept:
        offsets.append(starts.get(cursor, len(text) + 1))
        cursor += len(token)
    return texts, offsets


def _without_front(tokens: Sequence[bytes], whole: bytes) -> list[bytes]:
    extra = sum(map(len, tokens)) - len(whole)
    kept = list(tokens)
    for place, token in enumerate(tokens):
        if extra <= 0:
            break
        cut = min(extra, len(token))
        kept[place] = token[cut:]
        extra -= cut
    return kept if b"".join(kept) == whole else list(tokens)


def _character_starts(text: str) -> dict[int, int]:
    """Byte → the character that begins there."""
    starts, byte = {}, 0
    for place, character in enumerate(text):
        starts[byte] = place
        byte += len(character.encode())
    return starts
