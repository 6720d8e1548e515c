"""From `--llm NAME/MODEL` to a language model: cache → retry → limits → backend, each once."""

import asyncio
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from neuron_explainer import registry
from neuron_explainer.errors import ConfigError
from neuron_explainer.llm.base import (
    LLM,
    BackendSettings,
    Capabilities,
    Masses,
    Reading,
    Request,
    Response,
    Usage,
    reader,
)
from neuron_explainer.llm.cache import Cache
from neuron_explainer.llm.limits import Caps, Limits
from neuron_explainer.llm.prices import Prices, load
from neuron_explainer.llm.retry import Retry, Sleep

_ALL = 1_000_000  # requests at once


@dataclass(frozen=True, slots=True)
class LLMSettings:
    """How a language model is used. Nothing here changes what is asked."""

    backend: BackendSettings = field(default_factory=BackendSettings)
    cache: Path | None = None  # a file; None: replies are not kept
    prices: Path | None = None  # the user's own price table
    caps: Caps = field(default_factory=Caps)
    concurrency: int = 32  # at most; it adapts
    attempts: int = 8
    retry_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Spending:
    """What was paid in this process; what the cache answered is not."""

    usage: Usage
    cost: float | None  # US dollars; None: no price is known
    cache_hits: int
    used: Usage  # by all replies that were used, whoever gave them and when
    used_cost: float | None


class Stack:
    """A backend with all its wrappers: an LLM that also says what was spent."""

    def __init__(self, outer: LLM, limits: Limits, cache: Cache | None) -> None:
        self._outer = outer
        self._limits = limits
        self._cache = cache
        self._used = Usage()

    @property
    def model(self) -> str:
        """What answers."""
        return self._outer.model

    @property
    def backend(self) -> LLM:
        """What is behind the wrappers."""
        return self._limits.backend

    @property
    def spending(self) -> Spending:
        """What was paid so far."""
        hits = self._cache.hits if self._cache else 0
        limits, used = self._limits, self._used
        return Spending(limits.spent, limits.cost, hits, used, limits.cost_of(used))

    async def capabilities(self) -> Capabilities:
        """What it can be asked for."""
        return await self._outer.capabilities()

    async def complete(self, request: Request) -> Response:
        """The answer, from the cache or from the model."""
        response = await self._outer.complete(request)
        self._used += response.usage
        return response

    async def read(self, reading: Reading) -> Masses:
        """The masses, from the cache or from the model."""
        masses = await reader(self._outer).read(reading)
        self._used += masses.usage
        return masses

    async def close(self) -> None:
        """Let go of connections and files."""
        await self._outer.close()


def open_llm(
    spec: str, settings: LLMSettings = LLMSettings(), sleep: Sleep = asyncio.sleep
) -> Stack:
    """The model behind `openai/MODEL`, `batch/MODEL`, `local/PATH`, `scripted/FILE` or a plugin's.

    Raises ConfigError for an unknown name, LLMError when the model cannot be had.
    """
    name, slash, model = spec.partition("/")
    if not slash or not model:
        raise ConfigError(f"'{spec}' names no language model: write for example openai/gpt-4o-mini")
    reach = settings.backend
    if reach.folder is None and settings.cache is not None:
        reach = replace(reach, folder=settings.cache.with_name("batches"))
    backend: LLM = registry.resolve("llms", name)(model, reach)
    return wrap(backend, settings, sleep=sleep)


def wrap(
    backend: LLM,
    settings: LLMSettings = LLMSettings(),
    prices: Prices | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Stack:
    """A backend with all its wrappers; `prices` by default those of the settings."""
    bulk = bool(getattr(backend, "bulk", False))  # a batch wants all requests, and takes days
    width, patience = (_ALL, inf) if bulk else (settings.concurrency, settings.retry_seconds)
    table = prices or load(settings.prices)
    limits = Limits(backend, table, settings.caps, width, bulk=bulk)
    retry = Retry(limits, settings.attempts, patience, sleep)
    if settings.cache is None:
        return Stack(retry, limits, None)
    cache = Cache(retry, settings.cache)
    return Stack(cache, limits, cache)
