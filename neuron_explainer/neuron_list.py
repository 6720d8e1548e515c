"""Neurons of a site as people write them: `0-99,512`."""

import re
from collections.abc import Iterable

from neuron_explainer.errors import ConfigError

_RANGE = re.compile(r"(?P<first>[0-9]{1,12})(-(?P<last>[0-9]{1,12}))?")


def parse_neurons(text: str | None, width: int) -> list[int]:
    """`0-99,512` as sorted indices; None means all of them. Raises ConfigError."""
    if text is None:
        return list(range(width))
    chosen: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"'{text}' is no list of neurons: write for example 0-99,512")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise ConfigError(f"'{part.strip()}' runs backwards: write {last}-{first}")
        if last >= width:
            raise ConfigError(
                f"there is no neuron {max(first, width)}: the site has 0 to {width - 1}"
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def neuron_text(neurons: Iterable[int]) -> str:
    """Sorted indices as the shortest list: what `parse_neurons` reads back."""
    ranges: list[list[int]] = []
    for neuron in neurons:
        if ranges and ranges[-1][1] == neuron - 1:
            ranges[-1][1] = neuron
        else:
            ranges.append([neuron, neuron])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
