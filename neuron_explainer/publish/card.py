"""The dataset card: a YAML head for the hub, and a page for people, from the facts of a run."""

import re
from collections.abc import Iterator

from neuron_explainer.publish import card_contents, card_method, card_scores, card_use
from neuron_explainer.publish.facts import Facts
from neuron_explainer.publish.markdown import scalar

_TAGS = ("interpretability", "mechanistic-interpretability", "neuron-explanations")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")


def card(facts: Facts) -> str:
    """README.md, whole."""
    pages = (card_contents, card_scores, card_method, card_use)
    sections = [section for page in pages for section in page.sections(facts)]
    return "\n\n".join([_head(facts), *sections]) + "\n"


def _head(facts: Facts) -> str:
    lines = [
        *_license(facts.settings.license),
        f"pretty_name: {scalar(facts.title)}",
        "language:",
        *(f"- {language}" for language in facts.settings.language or ("und",)),
        "tags:",
        *(f"- {tag}" for tag in _tags(facts)),
        "size_categories:",
        f"- {_SIZES[min(max(0, len(str(facts.rows)) - 3), len(_SIZES) - 1)]}",
        "configs:",
    ]
    for config in facts.configs:
        lines += [f"- config_name: {config}"]
        lines += ["  default: true"] if config == "explanations" else []
        lines += ["  data_files:", "  - split: train", f"    path: data/{config}/*.parquet"]
    return "\n".join(["---", *lines, "---"])


def _license(given: str | None) -> list[str]:
    """The hub knows licences by short names; any other goes under `other`, with its own name."""
    if given is None:
        return ["license: unknown"]
    if _IDENTIFIER.fullmatch(given):
        return [f"license: {scalar(given)}"]
    return ["license: other", f"license_name: {scalar(given)}"]


def _tags(facts: Facts) -> Iterator[str]:
    yield from _TAGS
    if any(site.count("/") for site in facts.neurons):
        yield "sparse-autoencoder"
