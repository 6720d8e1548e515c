"""Reading many texts that begin alike: what they share is computed once, the rest side by side.

The keys and values of the prefix are kept from reading to reading, those of the head for one
reading; the bodies follow in batches, and of their last hidden states only those at the places
asked for meet the rows of the head that are asked for.

A model is first compared with itself: one text is also read in a plain forward pass. Where the two
differ, or its cache cannot be shared, everything is read by plain forward passes.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Masses, Reading, Usage
from neuron_explainer.llm.local_halves import Batch, Halves
from neuron_explainer.llm.local_head import Head
from neuron_explainer.llm.local_prompts import Prompt, Stopped, Task, Tokens, common
from neuron_explainer.llm.local_states import NONE, UNFIT, Ids, Passes, States, picked

_BUDGET = 1 << 14  # tokens of a batch: rows × the longest text's, those that are shared too


class LocalReader:
    """Reads with one network, one reading at a time."""

    def __init__(self, network: Any, tokens: Tokens) -> None:
        self._network = network
        self._tokens = tokens
        self._passes = Passes(network)
        self._halves = Halves(self._passes, tokens)
        self._head: Head | None = None  # None: everything is read plainly
        self._compared = False
        self._kept, self._prefix = "", NONE
        self._budget = _BUDGET

    def read(self, reading: Reading, stop: threading.Event) -> Masses:
        """The masses. Raises NeuronFailure("context-overflow", "out-of-memory"), Stopped."""
        prefix, task = self._tokens.task(reading, stop)
        before = self._passes.run
        try:
            with torch.inference_mode():
                rows = self._rows(task, prefix)
        except torch.OutOfMemoryError as error:
            raise NeuronFailure(
                "out-of-memory",
                "one sequence alone does not fit into the device's memory: use --llm-dtype "
                "bfloat16, or fewer examples (--option few_shot=1)",
            ) from error
        run, whole = self._passes.run - before, sum(len(prompt.ids) for prompt in task.prompts)
        parts = [_at_places(*pair) for pair in zip(task.prompts, rows, strict=True)]
        values = np.concatenate(parts)
        usage = Usage(max(whole, run), max(0, whole - run), 0, 1)
        return Masses(values, usage, reading.prefixes.index(prefix))

    def _rows(self, task: Task, prefix: str) -> list[Tensor]:
        """Of each prompt the masses (reads, targets)."""
        prompts = [prompt for prompt in task.prompts if len(prompt.reads)]
        if prompts and not self._compared:
            self._head = self._agreeing(task, prompts, prefix)
            self._compared = True
        if self._head is not None and prompts:
            together = replace(task, prompts=prompts)
            found = iter(self._together(together, prefix, self._head))
        else:
            found = (self._plainly(task, prompt) for prompt in prompts)
        nothing = torch.zeros(0, len(task.columns))
        return [next(found) if len(prompt.reads) else nothing for prompt in task.prompts]

    def _agreeing(self, task: Task, prompts: Sequence[Prompt], prefix: str) -> Head | None:
        """The head, if the shortest prompt is read alike beside the longest and plainly."""
        head = Head.of(self._network)
        if head is None:
            return None
        by_length = sorted(prompts, key=lambda prompt: len(prompt.ids))
        shortest, longest = by_length[0], by_length[-1]
        two = replace(task, prompts=[shortest, longest], split=None)
        try:
            found, _ = self._together(two, prefix, head)
        except (torch.OutOfMemoryError, Stopped):
            raise
        except UNFIT:
            return None
        plain = self._plainly(two, shortest)
        return head if self._passes.alike(found.softmax(1), plain.softmax(1)) else None

    def _together(self, task: Task, prefix: str, head: Head) -> list[Tensor]:
        """Batch by batch, the longest first; a batch that does not fit is halved."""
        shared = self._shared(task, prefix)
        order = sorted(range(len(task.prompts)), key=lambda place: -len(task.prompts[place].ids))
        found: dict[int, Tensor] = {}
        left = deque([order])
        while left:
            task.check()
            batch = left.popleft()
            longest = len(task.prompts[batch[0]].ids)
            rows = max(1, self._budget // longest)
            if len(batch) > rows:
                left.extendleft((batch[rows:], batch[:rows]))
                continue
            prompts = [task.prompts[place] for place in batch]
            done = self._unless_too_much(task, shared, prompts, head)
            if done is not None:
                found.update(zip(batch, done, strict=True))
            elif len(batch) == 1:
                raise torch.OutOfMemoryError
            else:
                self._budget = longest * (len(batch) // 2)
                left.appendleft(batch)
        return [found[place] for place in range(len(task.prompts))]

    def _unless_too_much(
        self, task: Task, shared: States, prompts: Sequence[Prompt], head: Head
    ) -> Sequence[Tensor] | None:
        """The batch's masses, or None where they take more memory than there is."""
        try:
            return self._batch(task, shared, prompts, head)
        except torch.OutOfMemoryError:
            pass  # the error holds on to what was allocated, so nothing is done while it lives
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _shared(self, task: Task, prefix: str) -> States:
        """The states of all tokens that every prompt begins with and nothing is read after."""
        first = task.prompts[0].ids
        length = min(int(prompt.reads[0]) for prompt in task.prompts)
        length = min([length, *(common(first, prompt.ids) for prompt in task.prompts[1:])])
        self._keep(prefix, first)
        known = self._prefix.first(common(self._prefix.ids, first[:length]))
        return self._extended(known, first[:length])

    def _keep(self, prefix: str, ids: Ids) -> None:
        """Have the states of a prefix at hand; `ids` are those of a prompt that begins with it."""
        if self._kept.startswith(prefix):
            return
        length = common(self._tokens.encoded([prefix])[0], ids)
        known = self._prefix.first(common(self._prefix.ids, ids[:length]))
        self._prefix, self._kept = self._extended(known, ids[:length]), prefix

    def _extended(self, states: States, ids: Ids) -> States:
        more = ids[len(states) :]
        return self._passes.extended(states, more) if len(more) else states

    def _batch(
        self, task: Task, shared: States, prompts: Sequence[Prompt], head: Head
    ) -> Sequence[Tensor]:
        begin = len(shared)
        reads = [prompt.reads for prompt in prompts]
        rows = [
            prompt.ids[begin : some[-1] + 1] for prompt, some in zip(prompts, reads, strict=True)
        ]
        passed = self._passes.after(shared, rows)
        states = picked(passed.states, [some - begin for some in reads])
        columns = torch.tensor(_flat(task.columns), dtype=torch.long, device=states.device)
        masses = _by_target(head.chosen(states, columns).cpu(), task.columns)
        parts = torch.split(masses, [len(some) for some in reads])
        self._halves.part(task, head, Batch(prompts, parts, passed, begin))
        return parts

    def _plainly(self, task: Task, prompt: Prompt) -> Tensor:
        """As a plain forward pass over the whole prompt has it."""
        task.check()
        logits = self._passes.whole(prompt.ids)[prompt.reads].float()
        masses = _by_target(logits[:, _flat(task.columns)].cpu(), task.columns)
        self._halves.part_plainly(task, prompt, masses)
        return masses


def _flat(columns: Sequence[Sequence[int]]) -> list[int]:
    return [token for tokens in columns for token in tokens]


def _by_target(logits: Tensor, columns: Sequence[Sequence[int]]) -> Tensor:
    """Masses (places, targets) of logits (places, tokens); tokens that read the same add up."""
    made = torch.full((len(logits), len(columns)), -torch.inf)
    begin = 0
    for target, tokens in enumerate(columns):
        if tokens:
            made[:, target] = logits[:, begin : begin + len(tokens)].logsumexp(1)
        begin += len(tokens)
    return made


def _at_places(prompt: Prompt, rows: Tensor) -> NDArray[np.float32]:
    values = np.full((len(prompt.last), rows.shape[1]), -np.inf, np.float32)
    values[prompt.read] = rows.numpy()
    return values
