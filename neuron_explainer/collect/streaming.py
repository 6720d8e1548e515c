"""One pass of a subject over a corpus or a part of it, and the tables that come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import torch

from neuron_explainer.collect.batches import Batch, batches
from neuron_explainer.collect.checkpoint import Checkpoints
from neuron_explainer.collect.fitting import Fitting, made_ahead
from neuron_explainer.collect.heads import HeadCollector, HeadTables
from neuron_explainer.collect.kept import Sizes
from neuron_explainer.collect.main_memory import give_back
from neuron_explainer.collect.overlap import Overlap
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.tables import SiteTables
from neuron_explainer.collect.taken import Taken
from neuron_explainer.collect.token_table import TableLayout, context_layout, token_layout
from neuron_explainer.config import CollectSettings
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.record_set import Corpus
from neuron_explainer.runner import Progress
from neuron_explainer.store import Folder, Shard, shards_of
from neuron_explainer.subjects.base import (
    HeadReader,
    LatentObserver,
    LatentReader,
    Observer,
    Subject,
)

_FLOAT = 4  # bytes
_TIDIED = 16  # batches after which free memory is given back
AnyCollector = SiteCollector | HeadCollector


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is kept of every site."""

    layouts: dict[str, TableLayout]
    sizes: Sizes
    seed: int
    pairs: bool = False  # of heads: all of a text

    @classmethod
    def of(cls, corpus: Corpus, settings: CollectSettings, widths: Mapping[str, int]) -> "Plan":
        """What the memory allows for the sites of these `widths` together."""
        neurons = sum(width for site, width in widths.items() if not is_pattern(site))
        most = settings.memory_mb * 2**20 // 4 // (_FLOAT * max(1, neurons))
        sizes = Sizes(
            settings.top,
            settings.random,
            settings.per_band,
            int(corpus.lengths.max()),
            len(corpus),
            max(1, min(most, len(corpus))),
        )
        layouts = _layouts(corpus, settings, neurons) if neurons else {}
        return cls(layouts, sizes, settings.seed, settings.pairs)

    def collector(self, site: str, width: int) -> AnyCollector:
        """An empty collector for a site of that width."""
        if is_pattern(site):
            sizes, longest = self.sizes, self.sizes.time if self.pairs else 0
            return HeadCollector(width, sizes.top, sizes.random, self.seed, longest)
        return SiteCollector(width, self.sizes, self.layouts, self.seed)


def _layouts(corpus: Corpus, settings: CollectSettings, neurons: int) -> dict[str, TableLayout]:
    """The token tables' rows, so many that all of them fit half of the memory allowed."""
    most = settings.memory_mb * 2**20 // 2 // (_FLOAT * neurons)
    if settings.context_table:
        most //= 2
    layouts = {"token": token_layout(corpus, settings.token_minimum, most)}
    if settings.context_table:
        layouts["context"] = context_layout(corpus, settings.token_minimum, most)
    return layouts


class Streamed(NamedTuple):
    """What came of a pass."""

    collectors: dict[str, AnyCollector]
    notices: tuple[str, ...]  # what the user should know


def stream(
    subject: Subject,
    corpus: Corpus,
    widths: Mapping[str, int],
    plan: Plan,
    settings: CollectSettings,
    progress: Progress,
    kept: Checkpoints,
    part: tuple[int, int] = (1, 1),
) -> Streamed:
    """Run the subject over the corpus, or over the n-th of so many batches: `part`."""
    collectors = {site: plan.collector(site, width) for site, width in widths.items()}
    number, parts = part
    done = kept.resume(collectors)
    overlap = Overlap()
    take = Fitting(partial(_take_in, subject, collectors, overlap))
    coming = batches(corpus, settings.batch, settings.seed, tokens=settings.batch_tokens)
    with progress("collect", len(corpus), "excerpts") as advance, torch.inference_mode():
        for place, batch in enumerate(made_ahead(coming)):
            if place >= done and place % parts == number - 1:
                take(batch)
                if kept.due(len(batch.positions)):
                    overlap.join()
                kept.seen(collectors, len(batch.positions), place + 1)
            if place % _TIDIED == 0:
                give_back()
            advance(len(batch.positions))
    overlap.join()
    return Streamed(collectors, (*take.notices, *_without_room(collectors)))


def _without_room(collectors: Mapping[str, AnyCollector]) -> tuple[str, ...]:
    short = [
        site
        for site, collector in collectors.items()
        if isinstance(collector, SiteCollector) and collector.lacks_room
    ]
    if not short:
        return ()
    return (
        f"the device has no room for what is kept of {len(short)} of {len(collectors)} sites: it "
        "is in main memory, which is slower; fewer layers at once or smaller --top, --random, "
        "--per-band and --memory change that",
    )


def _take_in(
    subject: Subject, collectors: Mapping[str, AnyCollector], overlap: Overlap, batch: Batch
) -> None:
    """Neurons in one forward pass, heads in another: only there attention is not a fast kernel."""
    overlap.drop()
    tokens = torch.from_numpy(batch.tokens)
    listed = subject.latents() if isinstance(subject, LatentReader) else {}
    neurons: dict[str, Observer] = {}
    heads: dict[str, Observer] = {}
    latents: dict[str, LatentObserver] = {}
    for site, collector in collectors.items():
        if isinstance(collector, HeadCollector):
            heads[site] = partial(collector.update, batch)
        elif site in listed:
            latents[site] = overlap.behind(site, partial(collector.update_latents, batch))
        else:
            neurons[site] = overlap.behind(site, partial(collector.update, batch))
    if latents:
        assert isinstance(subject, LatentReader)
        subject.observe_latents(tokens, neurons, latents)
    elif neurons:
        subject.observe(tokens, neurons)
    overlap.finish()
    if heads:
        assert isinstance(subject, HeadReader)
        subject.observe_pairs(tokens, heads)


def write(
    folders: Mapping[str, Folder],
    collectors: dict[str, AnyCollector],
    effects: Callable[[str, Shard], dict[str, pa.Table]],
    corpus: Corpus,
    settings: CollectSettings,
    progress: Progress,
    taken: Mapping[str, Taken],
) -> None:
    """Write the sites' tables; `effects` gives a shard's logit effects, by the table's name.

    Shards are of places among the neurons `taken` of a site; in the tables neurons have the site's
    own numbers.
    """
    shards = {site: shards_of(collector.neurons) for site, collector in collectors.items()}
    with progress("write", sum(map(len, shards.values())), "shards") as advance:
        for site in list(collectors):
            collector = collectors.pop(site)
            if isinstance(collector, SiteCollector):
                collector.move(torch.device("cpu"))
            tables = (
                HeadTables(collector, corpus)
                if isinstance(collector, HeadCollector)
                else SiteTables(collector, corpus, settings)
            )
            for shard in shards[site]:
                named = taken[site].named(shard)
                if not folders[site].has(named.file("records")):  # the others are listed with it
                    made = tables.shard(shard)
                    if not is_pattern(site):
                        made |= effects(site, shard)
                    numbered = {
                        named.file(name): taken[site].numbered(table)
                        for name, table in made.items()
                    }
                    folders[site].write(numbered)
                advance(1)
            folders[site].update({"width": taken[site].width, "complete": True})


def notices_of(layouts: Mapping[str, TableLayout], settings: CollectSettings) -> tuple[str, ...]:
    """Which token tables are cut off by the memory allowed."""
    return tuple(
        f"the {name} table keeps the {layout.rows - 1:,} most frequent rows; {layout.dropped:,} "
        f"more with {settings.token_minimum} or more occurrences share one pooled row because they "
        f"do not fit --memory {settings.memory_mb} MB"
        for name, layout in layouts.items()
        if layout.dropped
    )
