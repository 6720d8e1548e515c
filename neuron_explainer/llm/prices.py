"""What tokens cost, from a table that a user can edit. Without a price there is no cost: None."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuron_explainer import config
from neuron_explainer.errors import ConfigError
from neuron_explainer.llm.base import Usage

_MILLION = 1_000_000
_FREE = ("local/", "scripted/")  # what runs in this process
_SHIPPED = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens."""

    input: float
    output: float
    cached: float | None = None  # None: as input

    def of(self, usage: Usage) -> float:
        """What `usage` costs."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        read = fresh * self.input + usage.cached_tokens * cached
        return (read + usage.completion_tokens * self.output) / _MILLION


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by model name, and the share of them that the Batch API charges."""

    models: Mapping[str, Price] = field(default_factory=dict)
    batch: float = 1.0

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> float | None:
        """US dollars, or None when no price is known."""
        if model.startswith(_FREE):
            return 0.0
        price = self.models.get(model)
        if price is None:
            return None
        return price.of(usage) * (self.batch if batch else 1.0)


def load(own: Path | None = None) -> Prices:
    """The shipped table, over it that of a file `own` where it exists. Raises ConfigError."""
    shipped = _read(_SHIPPED, 1.0)
    if own is None or not own.is_file():
        return shipped
    mine = _read(own, shipped.batch)
    return Prices({**shipped.models, **mine.models}, mine.batch)


def _read(path: Path, batch: float) -> Prices:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from error
    unknown = sorted(set(content) - {"models", "batch"})
    if unknown:
        raise ConfigError(f"{path}: unknown key '{unknown[0]}'; known: batch, models")
    models = {
        name: config.build(Price, _floats(price), f'{path}: models."{name}"')
        for name, price in content.get("models", {}).items()
    }
    return Prices(models, float(content.get("batch", batch)))


def _floats(price: object) -> object:
    """TOML has whole numbers too."""
    if not isinstance(price, Mapping):
        return price
    return {key: float(value) if isinstance(value, int) else value for key, value in price.items()}
