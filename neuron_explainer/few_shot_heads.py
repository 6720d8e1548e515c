"""Example attention heads for prompts: invented, as text data, shared by explainer and simulator.

`prompts/attention-head/examples.toml` holds them in the order in which they are shown:

    [[heads]]
    explanation = "…"             what an explainer should have written
    records = [                   texts, each with a pair for which the head writes strongly
        { tokens = ["A", " text"], query = 1, key = 0, weak = [1, 1] },
    ]

`weak` is the query and the key of another pair of the same text, for which it does not: what a
simulator is shown beside the first. It names words that the head connects elsewhere, or a pair as
far apart, so that neither alone tells which is which.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neuron_explainer import workspace
from neuron_explainer.errors import PromptError
from neuron_explainer.records import Pair

FILE = "attention-head/examples.toml"


@dataclass(frozen=True, slots=True)
class FewShotPairs:
    """A text with a pair for which a head writes strongly, and one for which it does not."""

    tokens: tuple[bytes, ...]
    strong: Pair
    weak: Pair


@dataclass(frozen=True, slots=True)
class FewShotHead:
    """An invented head with its explanation."""

    explanation: str
    records: tuple[FewShotPairs, ...]


def load_few_shot_heads(folder: Path | None = None) -> tuple[FewShotHead, ...]:
    """The examples of `folder`, a workspace's `prompts/`, where there are any, else the package's.

    Raises PromptError.
    """
    return _load(few_shot_heads_file(folder))


def few_shot_heads_file(folder: Path | None = None) -> Path:
    """The file that `load_few_shot_heads` reads. Raises PromptError."""
    roots = [root for root in (folder, workspace.shipped() / "prompts") if root is not None]
    for root in roots:
        if (root / FILE).is_file():
            return root / FILE
    raise PromptError(f"no {FILE} in prompts/; restore it from the package")


@cache
def _load(file: Path) -> tuple[FewShotHead, ...]:
    try:
        heads = tomllib.loads(file.read_text("utf-8"))["heads"]
        return tuple(
            FewShotHead(_text(head["explanation"]), tuple(map(_record, head["records"])))
            for head in heads
        )
    except KeyError as error:
        raise PromptError(f"{file} holds no example heads: it has no {error}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PromptError(f"{file} holds no example heads: {error}") from error


def _text(text: object) -> str:
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        raise ValueError("explanation must be one line of text")
    return text


def _record(record: Mapping[str, Any]) -> FewShotPairs:
    tokens = tuple(token.encode() for token in record["tokens"])
    weak_query, weak_key = record["weak"]
    strong = _pair(record["query"], record["key"], len(tokens))
    return FewShotPairs(tokens, strong, _pair(weak_query, weak_key, len(tokens)))


def _pair(query: object, key: object, length: int) -> Pair:
    """Raises ValueError unless these are positions of a text, no key after its query."""
    if type(query) is not int or type(key) is not int or not 0 <= key <= query < length:
        raise ValueError(f"query {query!r} and key {key!r} are no pair of {length} tokens")
    return query, key
