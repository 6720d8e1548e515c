"""What a language model is asked and what it answers, whoever serves it.

message     one turn of a chat
request     a chat or a plain prompt with all that shapes the answer
choice      one answer; `Request.n` asks for several
logprobs    natural log probabilities, in columns, one item a token
reading     texts of which nothing is continued, only what could stand at some places is asked
masses      the answer to a reading: natural log probabilities of a few texts at each place
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from neuron_explainer.errors import LLMError

Role = Literal["system", "user", "assistant"]
Feature = Literal["chat", "completions", "top_logprobs", "json_schema", "prompt_logprobs", "n"]

_KEY_VERSION = 1
_INSTEAD: Mapping[Feature, str] = {
    "chat": "use a model with a chat template",
    "completions": "ask by chat messages, or serve the model where /v1/completions exists",
    "top_logprobs": "use simulator numbers or detection with --option logprobs=false",
    "json_schema": (
        "use --option schema=false, simulator one-at-a-time or all-at-once, or a server that "
        "enforces schemas"
    ),
    "prompt_logprobs": (
        "use simulator one-at-a-time or numbers, or all-at-once with --llm local/PATH, vLLM, or "
        "llama-cpp-python started with logits_all"
    ),
    "n": "ask for one sample a request",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """All that shapes an answer. Chat messages, or text that is simply continued."""

    prompt: tuple[Message, ...] | str
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None  # of each token that is written: this many alternatives
    json_schema: Mapping[str, Any] | None = None
    prompt_logprobs: int | None = None  # of each token of the prompt: this many alternatives
    n: int = 1  # choices
    sample: int = 0  # which of several equal requests; shifts the seed

    @property
    def sampling_seed(self) -> int | None:
        """The seed as a backend uses it: equal requests with other sample numbers differ."""
        return None if self.seed is None else self.seed + self.sample

    def key(self, model: str) -> str:
        """A hash of the whole request and the model, never of how it is sent."""
        # The order of a schema's properties is part of what is asked, so keys are not sorted.
        content = orjson.dumps([_KEY_VERSION, model, self])
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities (natural) in columns of equal length, one item a token."""

    tokens: Sequence[str]
    logprobs: Sequence[float | None]  # None: the first token of a prompt has none
    top: Sequence[Mapping[str, float] | None]  # the likeliest texts at this place
    offsets: Sequence[int] | None = None  # where in the text; None: the tokens spell it


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer. `text` never holds the prompt."""

    text: str
    finish_reason: str  # "stop", "length", or what the server says
    tokens: Logprobs | None = None
    prompt: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What answers took. `cached_tokens` are those of the prompt that the provider had at hand."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0

    def __add__(self, other: Self) -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.requests + other.requests,
        )

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Response:
    """A verified answer: as many choices as were asked for, with all that was asked for."""

    choices: tuple[Choice, ...]
    usage: Usage
    model: str

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        """The first choice's."""
        return self.choices[0].finish_reason

    @property
    def tokens(self) -> Logprobs | None:
        """The first choice's."""
        return self.choices[0].tokens

    @property
    def prompt(self) -> Logprobs | None:
        """The prompt's log probabilities, where they were asked for."""
        return self.choices[0].prompt


@dataclass(frozen=True, slots=True)
class Reading:
    """What could stand at some places of texts that begin alike.

    A text is the first of `prefixes` with which all texts fit into the model's context, then
    `head`, then one of `bodies`. Prefixes are meant to come again in other readings.
    """

    prefixes: tuple[str, ...]
    head: str
    bodies: tuple[str, ...]
    after: str  # one ASCII character: a place is where a body goes on after it
    targets: tuple[str, ...]  # the texts whose probabilities are read
    # Where the tokenizer writes a target as another one and a rest ("10" as "1" and "0"), the
    # other's mass is parted among the two if its share of all masses is at least this.
    least_share: float

    def key(self, model: str) -> str:
        """As `Request.key`."""
        content = orjson.dumps([_KEY_VERSION, "reading", model, self])
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Masses:
    """Natural log probabilities up to a constant in each row.

    `values` is (places, targets), the places of all bodies one after another; -inf where there is
    no mass, a whole row where no token begins at the place.
    """

    values: NDArray[np.float32]
    usage: Usage
    prefix: int | None = None  # which of the prefixes was read; None: saved before that was kept


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can be asked for. What a server claims is verified in every reply."""

    chat: bool
    completions: bool
    top_logprobs: int = 0  # at most this many alternatives; 0: none
    json_schema: bool = False
    prompt_logprobs: bool = False
    n: bool = False
    context: int | None = None  # tokens, prompt and answer together; None: not known
    reading: bool = False  # it is a Reader


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """How a backend reaches its model. Nothing here changes what is asked."""

    base_url: str | None = None  # default: OPENAI_BASE_URL, else OpenAI's own
    timeout: float = 180.0  # seconds, for a whole request
    device: str = "cpu"
    dtype: str = "auto"
    context: int | None = None  # tokens, where the server does not tell
    folder: Path | None = None  # where a batch keeps what it must remember
    gather: float = 2.0  # seconds without a new request, after which a batch is sent
    poll: float = 30.0  # seconds between two looks at a batch


class LLM(Protocol):
    """A language model, or a wrapper around one. `model` names what answers, for cache keys."""

    @property
    def model(self) -> str:
        """What answers."""
        ...

    async def capabilities(self) -> Capabilities:
        """What it can be asked for. Raises LLMError when it cannot be had at all."""
        ...

    async def complete(self, request: Request) -> Response:
        """The answer. Raises NeuronFailure for this request alone, LLMError when all must stop."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...


@runtime_checkable
class Reader(LLM, Protocol):
    """A language model at hand, of which more can be read than a server gives."""

    async def read(self, reading: Reading) -> Masses:
        """The masses. Raises as `complete`."""
        ...


def reader(llm: LLM) -> Reader:
    """`llm`, whose capabilities say that it is a Reader. Raises LLMError when it is none."""
    if isinstance(llm, Reader):
        return llm
    raise LLMError(f"{llm.model} cannot be read in process")


def needs(request: Request) -> list[Feature]:
    """What a backend must be able to do to answer this request."""
    features: list[Feature] = ["completions" if isinstance(request.prompt, str) else "chat"]
    if request.top_logprobs is not None:
        features.append("top_logprobs")
    if request.json_schema is not None:
        features.append("json_schema")
    if request.prompt_logprobs is not None:
        features.append("prompt_logprobs")
    if request.n > 1:
        features.append("n")
    return features


def require(capabilities: Capabilities, features: Sequence[Feature], who: str) -> None:
    """Raise LLMError when `who` cannot do one of `features`; it names what would work."""
    for feature in features:
        if not getattr(capabilities, feature):
            raise lacking(feature, who)


def lacking(feature: Feature, who: str) -> LLMError:
    """The error for a model that cannot do what a request needs."""
    return LLMError(f"{who} gives no {feature}; {_INSTEAD[feature]}")
