"""The language model of one stage: opened with the workspace's cache and prices, closed after."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuron_explainer.config import ModelSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.llm.base import BackendSettings, Usage
from neuron_explainer.llm.batch_round import BatchRound
from neuron_explainer.llm.compose import LLMSettings, Spending, Stack, open_llm, wrap
from neuron_explainer.llm.forecast import Expected
from neuron_explainer.llm.limits import Caps

CACHE = Path(".cache") / "replies.sqlite"
PRICES = Path("prices.toml")


@asynccontextmanager
async def opened(settings: ModelSettings, root: Path) -> AsyncIterator[Stack | None]:
    """The model that `settings` name, or None when they name none; `root` is the workspace's.

    Every reply is kept in the workspace's cache, whoever asks. Raises LLMError and ConfigError.
    """
    if settings.llm is None:
        if settings.in_files:
            raise ConfigError("batch files need the model that they are for: --llm openai/MODEL")
        yield None
        return
    (root / CACHE).parent.mkdir(exist_ok=True)
    prices = root / PRICES
    used = LLMSettings(
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
    )
    with ExitStack() as files:
        if settings.in_files:
            llm = wrap(files.enter_context(_round(settings)), used)
        else:
            llm = open_llm(settings.llm, used)
        try:
            yield llm
        finally:
            await llm.close()


def _round(settings: ModelSettings) -> BatchRound:
    """The model whose requests and replies are files. Raises ConfigError, LLMError, DataError."""
    name, _, model = (settings.llm or "").partition("/")
    if name not in ("openai", "batch") or not model:
        raise ConfigError(
            f"batch files hold requests to a server, not to '{settings.llm}': --llm openai/MODEL"
        )
    if settings.max_cost is not None or settings.max_tokens is not None:
        raise ConfigError(
            "--max-cost and --max-tokens stop what is sent, and batch files send nothing: "
            "--dry-run tells what the requests may cost"
        )
    folders = [settings.read_batch, settings.write_batch]
    read, write = (None if folder is None else Path(folder) for folder in folders)
    return BatchRound(model, read, write, settings.context)


def round_of(llm: Stack | None) -> BatchRound | None:
    """The round of batch files behind a model, if there is one."""
    return llm.backend if llm is not None and isinstance(llm.backend, BatchRound) else None


def wants_all(llm: Stack | None) -> bool:
    """Whether requests are sent together, as the Batch API's are, so that none should wait."""
    in_bulk = llm is not None and bool(getattr(llm.backend, "bulk", False))
    return in_bulk and round_of(llm) is None


def accounted(
    before: dict[str, Any], spending: Spending, neurons: int, forecast: Expected | None = None
) -> dict[str, Any]:
    """What a run has spent in all, for its manifest: `before` and what was spent now.

    `neurons` were done now. Their mean counts every reply that they used, paid now or cached, so
    that it does not depend on what the cache held; replies of no use are not in it.
    """
    now = {**_counts(spending.usage), "cache_hits": spending.cache_hits}
    total: dict[str, Any] = {key: before.get(key, 0) + value for key, value in now.items()}
    cost = None if spending.cost is None else (before.get("cost") or 0.0) + spending.cost
    used, used_cost = before.get("used", {}), before.get("used_cost", 0.0)
    if neurons:
        used = {key: used.get(key, 0) + value for key, value in _counts(spending.used).items()}
        known = used_cost is not None and spending.used_cost is not None
        used_cost = used_cost + spending.used_cost if known else None
    done = before.get("neurons", 0) + neurons
    means = {}
    if done:
        tokens = used["prompt_tokens"] + used["completion_tokens"]
        means = {"tokens": tokens / done, "cost": None if used_cost is None else used_cost / done}
    foreseen = before.get("forecast") if forecast is None else asdict(forecast)
    return {
        **total,
        "cost": cost,
        "neurons": done,
        "used": used,
        "used_cost": used_cost,
        "per_neuron": means,
        "forecast": foreseen,
    }


def _counts(usage: Usage) -> dict[str, int]:
    return {
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    }
