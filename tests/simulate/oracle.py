"""Language models for tests of simulators: they answer prompts as sent, through the wire's shapes.

An oracle knows planted neurons by the text of their explanation, reads the tokens back from the
prompt and answers the truth; as its tokenizer it cuts text where it hurts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from random import Random

import orjson

from neuron_explainer import token_text
from neuron_explainer.llm.base import (
    Capabilities,
    Choice,
    Logprobs,
    Message,
    Request,
    Response,
    Usage,
    needs,
    require,
)

Neuron = Callable[[bytes, bytes], int]  # a token and all the text before it → its level
ALL = Capabilities(True, True, 20, True, True, True)
PLAIN = Capabilities(False, True, 20, False, True)
BARE = Capabilities(True, False)

_ABOUT = re.compile(r"^The (?:neuron responds to|head connects): (.*)", re.MULTILINE)
_BLOCK = re.compile(r"<start>\n(.*?)\n<end>", re.DOTALL)
_LAST = re.compile(r"Text so far: \[(.*)\]\nIts last token: \[(.*)\]")
_MARK = re.compile(r"(?<=\t) unknown")


def written(prompt: tuple[Message, ...] | str) -> str:
    """A prompt as one text, a chat's roles in brackets."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in prompt)


def levels(neuron: Neuron, tokens: Sequence[bytes]) -> list[int]:
    """What a planted neuron does at each token."""
    return [neuron(token, b"".join(tokens[:place])) for place, token in enumerate(tokens)]


@dataclass
class Oracle:
    """Answers from the truth. `sure` is what it gives to it; the neighbours get the rest."""

    neurons: Mapping[str, Neuron]
    can: Capabilities = ALL
    sure: float = 0.9
    ten_in_two: bool = False
    seed: int = 0
    model: str = "oracle"
    requests: list[Request] = field(default_factory=list)

    async def capabilities(self) -> Capabilities:
        """As it was told."""
        return self.can

    async def complete(self, request: Request) -> Response:
        """The truth, in the form that the prompt asks for."""
        require(self.can, needs(request), self.model)
        self.requests.append(request)
        return Response((self._choice(request),), Usage(requests=1), self.model)

    async def close(self) -> None:
        """Nothing is open."""

    def _choice(self, request: Request) -> Choice:
        text = written(request.prompt)
        head = text[: text.rfind("<start>\n")] if "<start>\n" in text else text
        neuron = self.neurons[_ABOUT.findall(head)[-1]]
        if request.prompt_logprobs is not None:
            return Choice("", "length", prompt=self._echo(text, neuron))
        if isinstance(request.prompt, str) and request.prompt.endswith("\t1"):
            top = {"0": log(self._then_zero(text, neuron)), "\n": log(0.001)}
            return Choice("0", "length", Logprobs(["0"], [0.0], [top]))
        if "\nIts last token: [" in text:
            return self._one(text, neuron)
        reply, tops = self._listed(text, neuron)
        return self._in_tokens(reply, tops, request)

    def _distribution(self, level: int) -> dict[str, float]:
        rest = (1.0 - self.sure) / 2
        near = {max(level - 1, 0): rest, min(level + 1, 10): rest}
        near[level] = near.get(level, 0.0) + self.sure
        if self.ten_in_two and 10 in near:
            near[1] = near.get(1, 0.0) + near.pop(10)
        made = {str(value): log(share) for value, share in near.items() if share > 0}
        return made | {" 9": log(0.3), "the": log(0.2), "03": log(0.1)}

    def _then_zero(self, text: str, neuron: Neuron) -> float:
        tokens = _block_tokens(text)
        level = levels(neuron, tokens)[-1]
        return {10: 1 - 1e-9, 9: 1 - 1e-9}.get(level, 1e-9)

    def _echo(self, text: str, neuron: Neuron) -> Logprobs:
        """The prompt cut anywhere but where an ` unknown` or an example's number begins."""
        begin = text.rindex("<start>\n")
        truth = iter(levels(neuron, _block_tokens(text)))
        marks = {at.start(): self._distribution(next(truth)) for at in _MARK.finditer(text, begin)}
        random = Random(self.seed + len(text))
        cuts = {0, *marks, *random.sample(range(len(text)), len(text) // 3)}
        for ten in re.finditer(r"(?<=\t)10(?=\n)", text):
            cuts |= {ten.start(), ten.end()}
            cuts = cuts | {ten.start() + 1} if self.ten_in_two else cuts - {ten.start() + 1}
        ends = sorted(cuts)
        tokens = [text[a:b] for a, b in zip(ends, [*ends[1:], len(text)], strict=True)]
        tops = [marks.get(at, {"5": 0.0, "x": -1.0}) for at in ends]
        return Logprobs(tokens, [None, *[-1.0] * (len(ends) - 1)], [None, *tops[1:]])

    def _one(self, text: str, neuron: Neuron) -> Choice:
        so_far, last = _LAST.findall(text)[-1]
        whole, token = token_text.read(so_far), token_text.read(last)
        assert whole.endswith(token)
        level = neuron(token, whole[: len(whole) - len(token)])
        top = self._distribution(level)
        if self.ten_in_two and level == 10:
            after = {"0": log(0.999), "\n": log(0.001)}
            return Choice("10", "length", Logprobs(["1", "0"], [0.0, 0.0], [top, after]))
        first = max(top, key=lambda text: top[text])
        tokens = Logprobs([first, "\n"], [0.0, 0.0], [top, {"\n": 0.0}])
        return Choice(first, "length", tokens)

    def _listed(self, text: str, neuron: Neuron) -> tuple[str, list[dict[str, float]]]:
        """A structured reply and the alternatives of each of its values."""
        rows = [row.split("\t", 1) for row in _BLOCK.findall(text)[-1].split("\n")]
        assert [int(index) for index, _ in rows] == list(range(len(rows)))
        if "verdicts" in text:
            return self._verdicts(text, [token for _, token in rows], neuron)
        tokens = [token_text.read(token) for _, token in rows]
        dense = "List every token" in text
        found = {at: level for at, level in enumerate(levels(neuron, tokens)) if dense or level}
        listed = [{"index": at, "activation": level} for at, level in found.items()]
        reply = orjson.dumps({"activations": listed}, option=orjson.OPT_INDENT_2).decode()
        return reply, [self._distribution(level) for level in found.values()]

    def _verdicts(
        self, text: str, rows: Sequence[str], neuron: Neuron
    ) -> tuple[str, list[dict[str, float]]]:
        """A neuron is given each text; where some of it is marked, what is, and the text."""
        field = next(name for name in ("correct", "writes", "fires") if f'"{name}"' in text)
        asked = [marked(row) if field != "fires" else (token_text.read(row), b"") for row in rows]
        says = [bool(neuron(*about)) for about in asked]
        entries = [{"index": at, field: yes} for at, yes in enumerate(says)]
        tops = [{"true": log(0.9 if yes else 0.1)} for yes in says]
        tops = [top | {"false": log(1 - exp(top["true"]))} for top in tops]
        return orjson.dumps({"verdicts": entries}).decode(), tops

    def _in_tokens(self, reply: str, tops: list[dict[str, float]], request: Request) -> Choice:
        if request.top_logprobs is None:
            return Choice(reply, "stop")
        values = [
            m.span(1) for m in re.finditer(r'"(?:fires|correct|writes|activation)": ?(\w+)', reply)
        ]
        cuts = {0, *[at for span in values for at in span], *range(0, len(reply), 5)}
        inside = {at for begin, end in values for at in range(begin + 1, end)}
        if self.ten_in_two:
            inside -= {begin + 1 for begin, end in values if reply[begin:end] == "10"}
            cuts |= {begin + 1 for begin, end in values if reply[begin:end] == "10"}
        starts = sorted(at for at in cuts - inside if at < len(reply))
        tokens = [reply[a:b] for a, b in zip(starts, [*starts[1:], len(reply)], strict=True)]
        by_start = dict(zip((begin for begin, _ in values), tops, strict=True))
        by_start |= {
            begin + 1: {"0": log(0.999)}
            for begin, end in values
            if self.ten_in_two and reply[begin:end] == "10"
        }
        found = [by_start.get(at, {"7": 0.0}) for at in starts]
        return Choice(reply, "stop", Logprobs(tokens, [0.0] * len(tokens), found))


def marked(row: str) -> tuple[bytes, bytes]:
    """What stands «between marks» in a row of a prompt, in order, and the row without marks."""
    stretches = [""]
    for piece in re.findall(r"\\.|[^\\]", row):
        if piece in (token_text.OPEN, token_text.CLOSE):
            stretches.append("")
            assert (piece == token_text.OPEN) == (len(stretches) % 2 == 0), row
        else:
            stretches[-1] += piece
    assert len(stretches) % 2 == 1, row
    read = [token_text.read(stretch) for stretch in stretches]
    return b"|".join(read[1::2]), b"".join(read)


def _block_tokens(text: str) -> list[bytes]:
    """The tokens of the last all-at-once block, up to where the prompt ends."""
    block = text[text.rindex("<start>\n") + len("<start>\n") :].removesuffix("\n<end>")
    return [token_text.read(row.split("\t")[0]) for row in block.split("\n")]


@dataclass
class Parrot:
    """Says what it was given, one reply after another, and remembers what it was asked."""

    replies: Sequence[str | Choice]
    can: Capabilities = BARE
    model: str = "parrot"
    requests: list[Request] = field(default_factory=list)

    async def capabilities(self) -> Capabilities:
        """As it was told."""
        return self.can

    async def complete(self, request: Request) -> Response:
        """The next reply; the last one again when they are used up."""
        require(self.can, needs(request), self.model)
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append(request)
        choice = Choice(reply, "stop") if isinstance(reply, str) else reply
        return Response((choice,), Usage(requests=1), self.model)

    async def close(self) -> None:
        """Nothing is open."""
