"""Structured replies: a JSON list of entries with an index each, read strictly.

Whatever is not exactly what was asked for is an error with a message that the model can act on;
nothing is dropped, guessed or put to zero.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from neuron_explainer.conversation import Prompt
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import LLM, Capabilities, Message, Request, Response

Result = TypeVar("Result")
_ALTERNATIVES = 20
_END_OF_ANSWER = ("\n\n",)  # as after the examples; plain text would go on with a next neuron
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Form:
    """What a reply looks like: `{"<name>": [{"index": 0, "<field>": value}, …]}`."""

    name: str
    field: str
    values: tuple[int, ...] | tuple[bool, ...]  # all that `field` can be
    complete: bool  # whether every index must be there

    @property
    def schema(self) -> Mapping[str, Any]:
        """As a JSON schema that structured output takes."""
        boolean = isinstance(self.values[0], bool)
        value = {"type": "boolean"} if boolean else {"type": "integer", "enum": list(self.values)}
        entry = _closed_object({"index": {"type": "integer"}, self.field: value})
        return _closed_object({self.name: {"type": "array", "items": entry}})

    def write(self, values: Mapping[int, int]) -> str:
        """A reply with these values, as an example."""
        entries = [{"index": index, self.field: value} for index, value in values.items()]
        return orjson.dumps({self.name: entries}).decode()

    def read(self, text: str, count: int) -> dict[int, "Entry"]:
        """Index → entry of a reply about `count` rows. Raises ValueError: what is wrong."""
        listed = _only(_decoded(text), {self.name}, "the reply")[self.name]
        if not isinstance(listed, list):
            raise ValueError(f'"{self.name}" is not a list')
        spans = [match.span(1) for match in self._written.finditer(text)]
        found: dict[int, Entry] = {}
        for place, item in enumerate(listed):
            index, value = self._pair(item, count)
            if index in found:
                raise ValueError(f"index {index} is listed twice")
            if len(spans) < len(listed):
                raise ValueError("the JSON is not written plainly")
            found[index] = Entry(value, spans[place])
        if len(spans) > len(listed):  # JSON keeps the last one in silence
            raise ValueError(f'an entry has more than one "{self.field}"')
        if self.complete and len(found) < count:
            missing = next(index for index in range(count) if index not in found)
            raise ValueError(f"index {missing} is missing")
        return found

    @property
    def _written(self) -> re.Pattern[str]:
        return re.compile(rf'"{self.field}"\s*:\s*([^\s,}}\]]+)')

    def _pair(self, item: Any, count: int) -> tuple[int, int]:
        entry = _only(item, {"index", self.field}, "an entry")
        index, value = entry["index"], entry[self.field]
        if type(index) is not int or not 0 <= index < count:
            raise ValueError(f"the index {_brief(index)} is not one from 0 to {count - 1}")
        # 1 == True == 1.0, and only one of them was asked for
        if type(value) is not type(self.values[0]) or value not in self.values:
            wrong = f'the "{self.field}" {_brief(value)} at index {index}'
            raise ValueError(f"{wrong} is not {self._allowed}")
        return index, value

    @property
    def _allowed(self) -> str:
        first, last = (orjson.dumps(end).decode() for end in (self.values[0], self.values[-1]))
        return f"{first} or {last}" if len(self.values) == 2 else f"from {first} to {last}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and where in the reply it is written."""

    value: int
    span: tuple[int, int]


def request(
    prompt: Prompt,
    max_tokens: int,
    form: Form,
    capabilities: Capabilities,
    *,
    logprobs: bool,
    schema: bool,
) -> Request:
    """A request for a reply of this form, with what is wanted and the model can do."""
    alternatives = min(_ALTERNATIVES, capabilities.top_logprobs) if logprobs else 0
    enforced = schema and capabilities.json_schema
    return Request(
        prompt,
        max_tokens,
        stop=_END_OF_ANSWER if isinstance(prompt, str) else (),
        top_logprobs=alternatives or None,
        json_schema=form.schema if enforced else None,
    )


async def asked(
    llm: LLM,
    question: Request,
    read: Callable[[Response], Result],
    repair: Callable[[str], str],
) -> Result:
    """What `read` makes of the answer, after one more question if it raises ValueError.

    `repair` is that question, given what is wrong. Raises NeuronFailure("malformed-reply") when the
    second answer is no better.
    """
    response = await llm.complete(question)
    try:
        return read(response)
    except ValueError as error:
        problem = _problem(response, error)
    again = replace(
        question,
        prompt=_extended(question.prompt, response.text, repair(problem)),
        sample=question.sample + 1,
    )
    response = await llm.complete(again)
    try:
        return read(response)
    except ValueError as error:
        raise NeuronFailure(
            "malformed-reply",
            f"first {problem}; then, asked again, {_problem(response, error)}",
        ) from error


def _extended(prompt: Prompt, reply: str, question: str) -> Prompt:
    """The exchange with what was answered and a further question."""
    if isinstance(prompt, str):
        return f"{prompt}{reply}\n\n{question}\n"
    return (*prompt, Message("assistant", reply), Message("user", question))


def _problem(response: Response, error: ValueError) -> str:
    cut = (
        "it was cut off at the limit on tokens, and " if response.finish_reason == "length" else ""
    )
    return f"{cut}{error}"


def _decoded(text: str) -> Any:
    fenced = _FENCED.fullmatch(text)
    try:
        return orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the reply is not JSON alone ({error})") from error


def _only(value: Any, keys: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    if missing := sorted(keys - value.keys()):
        raise ValueError(f'{where} has no "{missing[0]}"')
    if more := sorted(value.keys() - keys):
        raise ValueError(f"{where} has an unexpected key {_brief(more[0])}")
    return value


def _closed_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _brief(value: Any) -> str:
    return repr(value)[:40]
