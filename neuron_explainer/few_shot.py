"""Example neurons for prompts: invented, as text data, shared by explainers and simulators.

One TOML file a neuron in `prompts/few-shot/`, shown in the order of the files' names:

    explanation = "…"             what an explainer should have written
    label = "…"                   the same in a few words
    fires = [" tea", " milk"]     every token that it fires on, wherever that stands; or
    inside = [" (", ")"]          it fires on all that stands between these two tokens
    promoted = [" cup", " pot"]   tokens that it makes more likely to come next, most of all first
    suppressed = [" very"]        those that it makes less likely
    effect = "…"                  what the promoted ones have in common
    [[records]]
    tokens = ["A", [" token", 10], " with", [" its", 3], " activation"]

`promoted`, `suppressed` and `effect` go together; an example without them is left out where a
question shows such tokens. `fires` and `inside` say in a form that can be checked what the
explanation says in words: an example that shows a zero on a token that its explanation names
teaches the opposite.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neuron_explainer import workspace
from neuron_explainer.activations import LEVELS
from neuron_explainer.errors import PromptError

FewShotRecord = tuple[tuple[str, ...], tuple[int, ...]]

_EFFECT_KEYS = {"promoted", "suppressed", "effect"}
_KEYS = {"explanation", "label", "fires", "inside", "records", *_EFFECT_KEYS}


@dataclass(frozen=True, slots=True)
class FewShotNeuron:
    """An invented neuron with its explanation."""

    explanation: str
    records: tuple[FewShotRecord, ...]  # tokens and their activations, 0–10
    label: str = ""
    fires: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()  # none, or an opening and a closing token
    promoted: tuple[str, ...] = ()
    suppressed: tuple[str, ...] = ()
    effect: str = ""  # what the promoted tokens have in common


def load_few_shot(folder: Path | None = None) -> tuple[FewShotNeuron, ...]:
    """The examples of `folder`/few-shot where there are any, else those of the package.

    `folder` is a workspace's `prompts/`. Raises PromptError.
    """
    return _load(few_shot_files(folder))


def few_shot_files(folder: Path | None = None) -> tuple[Path, ...]:
    """The files that `load_few_shot` reads. Raises PromptError."""
    for root in (folder, workspace.shipped() / "prompts"):
        files = sorted((root / "few-shot").glob("*.toml")) if root is not None else []
        if files:
            return tuple(files)
    raise PromptError("no examples in prompts/few-shot/; restore them from the package")


@cache
def _load(files: tuple[Path, ...]) -> tuple[FewShotNeuron, ...]:
    return tuple(_neuron(file) for file in files)


def _neuron(file: Path) -> FewShotNeuron:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
        if unknown := sorted(content.keys() - _KEYS):
            raise ValueError(f"'{unknown[0]}' is not one of its keys")
        writes = not _EFFECT_KEYS.isdisjoint(content)
        return FewShotNeuron(
            _text(content, "explanation"),
            tuple(_record(record) for record in content["records"]),
            _text(content, "label"),
            tuple(content.get("fires", ())),
            tuple(content.get("inside", ())),
            _tokens(content, "promoted") if writes else (),
            _tokens(content, "suppressed") if writes else (),
            _text(content, "effect") if writes else "",
        )
    except KeyError as error:
        raise PromptError(f"{file} has no {error}; see prompts/README.md") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PromptError(f"{file} is no example neuron: {error}") from error


def _text(content: Mapping[str, Any], key: str) -> str:
    text = content[key]
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        raise ValueError(f"{key} must be one line of text")
    return text


def _tokens(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    tokens = content[key]
    if not isinstance(tokens, list) or not all(isinstance(t, str) and t for t in tokens):
        raise ValueError(f"{key} must be a list of tokens")
    return tuple(tokens)


def _record(record: Mapping[str, Any]) -> FewShotRecord:
    pairs = [(item, 0) if isinstance(item, str) else tuple(item) for item in record["tokens"]]
    for token, activation in pairs:
        if not isinstance(token, str) or not token:
            raise ValueError(f"{token!r} is no token")
        if not isinstance(activation, int) or not 0 <= activation <= LEVELS:
            raise ValueError(f"the activation of {token!r} is {activation!r}, not 0 to {LEVELS}")
    return tuple(token for token, _ in pairs), tuple(activation for _, activation in pairs)
