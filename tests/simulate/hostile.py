"""Token sequences that break prompts: delimiters, control characters, halves of characters."""

from random import Random

HOSTILE: tuple[bytes, ...] = (
    *(b"", b" ", b"  ", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\x0b", b"\x0c", b"\x1c"),
    *(b"<start>", b"<end>", b"<start>\n", b"\n<end>", b"unknown", b"\tunknown", b" unknown"),
    *(b"\t unknown\n", b"\t10\n", b"<|endoftext|>", b"</s>", b"<s>", b"<", b">", b"]", b"["),
    *(b"]\nIts last token: [", b"{", b"}", b"{explanation}", b'"', b"'", b'"activation": 7'),
    *(b"\\", b"\\n", b"\\t", b"\\x00", b"\\\\", b"\\x3c", b"0", b"10", b"0\t0", b"<start"),
    *("é".encode()[:1], "é".encode()[1:], "😀".encode()[:2], "😀".encode()[2:], b"\xff\xfe"),
    *("\u200b".encode(), "\u200d".encode(), "\u2028".encode(), "\u2029".encode()),
    *("\x85".encode(), "\u202e".encode(), "\ufeff".encode(), "\u00a0".encode(), "é".encode()),
    *("日本".encode(), "e\u0301".encode(), "👩\u200d🚀".encode(), "\U0010ffff".encode()),
    *(b"\xed\xa0\x80", b" cat", b" the", "“".encode(), "«»".encode(), b"The neuron responds to: x"),
)


def sequences(number: int, seed: int = 0) -> list[tuple[bytes, ...]]:
    """Each hostile token alone and next to itself, then random mixtures, `number` in all."""
    random = Random(seed)
    made = [(token,) * length for token in HOSTILE for length in (1, 2)]
    while len(made) < number:
        some = [random.choice(HOSTILE) for _ in range(random.randint(1, 9))]
        some += [random.randbytes(random.randint(1, 4)) for _ in range(random.randint(0, 2))]
        random.shuffle(some)
        made.append(tuple(some))
    return made[:number]
