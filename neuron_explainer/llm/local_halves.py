"""Numbers that a tokenizer writes in two tokens: how much of "1" is the beginning of "10".

Where "1" is likely at all, it is run once more as the next token, and what follows it tells. All
such "1"s of a batch go in one forward pass, each beside its text; the first of them is compared
with a plain pass, and where a model does not take such masks, all of them are run plainly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuron_explainer.llm.local_head import Head
from neuron_explainer.llm.local_prompts import Prompt, Split, Stopped, Task, Tokens
from neuron_explainer.llm.local_states import UNFIT, Ids, Passed, Passes, picked


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that were run together."""

    prompts: Sequence[Prompt]
    masses: Sequence[Tensor]  # of each (reads, targets)
    passed: Passed
    begin: int  # the first token that was run


class Halves:
    """Parts the masses of first halves, in place."""

    def __init__(self, passes: Passes, tokens: Tokens) -> None:
        self._passes = passes
        self._tokens = tokens
        self._believed: bool | None = None  # that masks are heeded; None: not yet tried

    def part(self, task: Task, head: Head, batch: Batch) -> None:
        """Those of a batch, whose cache is used up."""
        split = task.split
        if split is None:
            return
        likely = [_likely(masses, split, task.least_share) for masses in batch.masses]
        if not any(map(len, likely)):
            return
        shares = self._beside(split, head, batch, likely)
        if shares is None:
            pairs = zip(batch.prompts, likely, strict=True)
            shares = [self._plainly(task, split, *pair) for pair in pairs]
        for masses, places, share in zip(batch.masses, likely, shares, strict=True):
            _part(masses, places, share, split)

    def part_plainly(self, task: Task, prompt: Prompt, masses: Tensor) -> None:
        """Those of one prompt, (reads, targets), by plain forward passes."""
        if task.split is not None:
            likely = _likely(masses, task.split, task.least_share)
            _part(masses, likely, self._plainly(task, task.split, prompt, likely), task.split)

    def _beside(
        self, split: Split, head: Head, batch: Batch, likely: Sequence[Ids]
    ) -> list[Tensor] | None:
        """How likely the rest is after each first half; None where it cannot be told this way."""
        row = next(row for row, places in enumerate(likely) if len(places))
        prompt, first, last = batch.prompts[row], int(likely[row][0]), int(likely[row][-1])
        text = self._with_half(split, prompt, first)
        here = np.append(prompt.ids[: prompt.reads[first] + 1], split.token)
        if self._believed is False or not np.array_equal(text, here):
            return None
        try:
            shares = self._run(split, head, batch, likely)
        except (torch.OutOfMemoryError, Stopped):
            raise
        except UNFIT:
            self._believed = False
            return None
        if self._believed is None:
            # the first has most to be masked of its own text, the last most of other halves
            after_last = self._with_half(split, prompt, last)
            plain = torch.cat([self._share(split, text), self._share(split, after_last)])
            self._believed = self._passes.alike(shares[row][[0, -1]], plain)
        return shares if self._believed else None

    def _run(self, split: Split, head: Head, batch: Batch, likely: Sequence[Ids]) -> list[Tensor]:
        places = [
            prompt.reads[some] + 1 for prompt, some in zip(batch.prompts, likely, strict=True)
        ]
        states = self._passes.beside(batch.passed, split.token, places, batch.begin)
        ends = picked(states, [np.arange(len(some)) for some in places])
        rest = torch.tensor(split.rest, device=ends.device)
        shares = head.log_shares(ends, rest).exp().sum(1).cpu()
        return list(torch.split(shares, [len(some) for some in places]))

    def _plainly(self, task: Task, split: Split, prompt: Prompt, places: Ids) -> Tensor:
        shares = [torch.zeros(0)]
        for place in places.tolist():
            task.check()
            shares.append(self._share(split, self._with_half(split, prompt, place)))
        return torch.cat(shares)

    def _with_half(self, split: Split, prompt: Prompt, place: int) -> Ids:
        """The tokens of the text that ends with a first half at one of the prompt's reads."""
        text = prompt.text[: prompt.ends[prompt.read][place]]
        return self._tokens.encoded([text + split.text])[0]

    def _share(self, split: Split, ids: Ids) -> Tensor:
        """How likely the rest is after `ids`, (1,)."""
        logits = self._passes.whole(ids)[-1:].float()
        return torch.log_softmax(logits, -1)[:, list(split.rest)].exp().sum(1).cpu()


def _likely(masses: Tensor, split: Split, least_share: float) -> Ids:
    """The rows of `masses` in which the first half is worth a look."""
    ones = masses[:, split.first]
    found = ones.isfinite() & (ones >= masses.logsumexp(1) + math.log(least_share))
    return np.flatnonzero(found.numpy())


def _part(masses: Tensor, rows: Ids, shares: Tensor, split: Split) -> None:
    shares = shares.clamp(0.0, 1.0)
    masses[rows, split.whole] = masses[rows, split.first] + shares.log()
    masses[rows, split.first] += torch.log1p(-shares)
