"""The language model of one stage: opened with the workspace's cache and prices, closed after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from neuron_explainer.config import ModelSettings
from neuron_explainer.llm.base import BackendSettings
from neuron_explainer.llm.compose import LLMSettings, Spending, Stack, open_llm
from neuron_explainer.llm.limits import Caps

CACHE = Path(".cache") / "replies.sqlite"
PRICES = Path("prices.toml")


@asynccontextmanager
async def opened(settings: ModelSettings, root: Path) -> AsyncIterator[Stack | None]:
    """The model that `settings` name, or None when they name none; `root` is the workspace's.

    Every reply is kept in the workspace's cache, whoever asks. Raises LLMError and ConfigError.
    """
    if settings.llm is None:
        yield None
        return
    (root / CACHE).parent.mkdir(exist_ok=True)
    prices = root / PRICES
    llm = open_llm(
        settings.llm,
        LLMSettings(
            BackendSettings(
                settings.base_url,
                device=settings.device,
                dtype=settings.dtype,
                context=settings.context,
            ),
            cache=root / CACHE,
            prices=prices if prices.is_file() else None,
            caps=Caps(settings.max_cost, settings.max_tokens),
            concurrency=settings.concurrency,
        ),
    )
    try:
        yield llm
    finally:
        await llm.close()


def accounted(before: dict[str, Any], spending: Spending) -> dict[str, Any]:
    """What a run has spent in all, for its manifest: `before` and what was spent now."""
    usage = spending.usage
    now = {
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "cache_hits": spending.cache_hits,
    }
    total: dict[str, Any] = {key: before.get(key, 0) + value for key, value in now.items()}
    cost = None if spending.cost is None else before.get("cost", 0.0) + spending.cost
    return {**total, "cost": cost}
