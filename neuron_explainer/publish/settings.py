"""What the person who publishes says about a dataset; what is not said is stated as unknown."""

import re
from dataclasses import dataclass

from neuron_explainer.errors import ConfigError
from neuron_explainer.publish.columns import ALWAYS, CONFIGS
from neuron_explainer.registry import unknown

_LANGUAGE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Raises ConfigError when a value makes no sense."""

    name: str | None = None  # of the dataset; default: the run's
    license: str | None = None  # of the explanations and scores
    corpus_license: str | None = None  # of the text that the records hold
    language: tuple[str, ...] = ()  # ISO 639 codes
    without: tuple[str, ...] = ()  # configs that are left out
    partial: bool = False  # publish a run that is not whole

    def __post_init__(self) -> None:
        for config in self.without:
            if config not in CONFIGS:
                raise ConfigError(f"--without: {unknown('config', config, list(CONFIGS))}")
            if config in ALWAYS:
                raise ConfigError(
                    f"--without {config}: a dataset always has {' and '.join(ALWAYS)}"
                )
        for code in self.language:
            if not _LANGUAGE.fullmatch(code):
                raise ConfigError(f"--language {code}: give an ISO 639 code, such as en")

    @property
    def configs(self) -> tuple[str, ...]:
        """What is published."""
        return tuple(config for config in CONFIGS if config not in self.without)
