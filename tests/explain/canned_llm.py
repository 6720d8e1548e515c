"""A language model that answers what a test says, and small neurons to ask it about."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from neuron_explainer.llm.base import Capabilities, Choice, Message, Request, Response, Usage
from neuron_explainer.records import Kind, NeuronId, NeuronRecord, Record, Split, TokenRows

CHAT = Capabilities(chat=True, completions=True)
PLAIN = Capabilities(chat=False, completions=True)


@dataclass
class CannedLLM:
    """Gives the same reply every time and remembers what it was asked."""

    reply: str = "names of rivers"
    finish_reason: str = "stop"
    able: Capabilities = CHAT
    requests: list[Request] = field(default_factory=list)
    model: str = "canned"

    async def capabilities(self) -> Capabilities:
        """As given."""
        return self.able

    async def complete(self, request: Request) -> Response:
        """As given."""
        self.requests.append(request)
        return Response((Choice(self.reply, self.finish_reason),), Usage(), self.model)

    async def close(self) -> None:
        """Nothing is open."""


def text_of(prompt: tuple[Message, ...] | str) -> str:
    """A prompt as a golden file holds it."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"=== {message.role}\n{message.content}" for message in prompt)


def record(
    tokens: Sequence[bytes | str],
    activations: Sequence[float],
    kind: Kind = "top",
    split: Split | None = "train",
    sequence: int = 0,
) -> Record:
    """A record all of whose positions count."""
    data = tuple(token.encode() if isinstance(token, str) else token for token in tokens)
    values = np.array(activations, np.float64)
    return Record(data, values, np.ones(len(data), np.bool_), kind, split, sequence)


def neuron(*records: Record, rows: TokenRows | None = None) -> NeuronRecord:
    """A neuron with these records."""
    return NeuronRecord(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), records, None, rows)


def rows(*entries: tuple[bytes, float, int], previous: bytes | None = None) -> TokenRows:
    """A token table: token, mean activation, count; all after `previous` if it is given."""
    names = (*(token for token, _, _ in entries), b"", *([] if previous is None else [previous]))
    return TokenRows(
        names,
        np.full(len(entries), -1 if previous is None else len(names) - 1, np.int32),
        np.arange(len(entries), dtype=np.int32),
        np.array([mean for _, mean, _ in entries], np.float32),
        np.array([count for _, _, count in entries], np.int32),
    )


def rivers() -> NeuronRecord:
    """Fires on rivers: two train records, two of low activation, a token table."""
    return neuron(
        record(
            ["The", " Danube", " and", " the", " Elbe", ",", "\n", "both", " long", "."],
            [0, 6.4, 0, 0, 5.1, 0, 0.3, 0, 0.7, 0],
        ),
        record(
            ["A", " boat", " on", " the", " Oder", " met", " no", " ice", ",", " none", " at all"],
            [0, 1.2, 0, 0.1, 4.5, 0, 0, 0.2, 0, 0, 0],
            sequence=1,
        ),
        record(["«", "Tea", "»", " or", " milk", "?"], [0] * 6, "quantile", None, 2),
        record(["Two", " ships", " sank", "."], [0, 1.5, 0.2, 0], "quantile", None, 3),
        rows=rows((b" Danube", 5.0, 40), (b" Oder", 4.6, 12), (b" ship", 0.9, 9), (b"x", 0.1, 50)),
    )


def writing_rivers() -> NeuronRecord:
    """The same with tokens that it promotes and suppresses."""
    return replace(
        rivers(),
        promoted=((b" flows", 0.9), (b"bank", 0.7), (b"\n", 0.2)),
        suppressed=((b" dry", -0.8), (b" desk", -0.3)),
    )
