"""What the viewer computes while it is served: typed text, typed explanations, what they cost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from neuron_explainer.config import ModelSettings, SubjectSettings
from neuron_explainer.errors import ConfigError, LLMError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.llm.compose import Stack
from neuron_explainer.llm.session import opened
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.subject_loading import load_subject
from neuron_explainer.subjects.base import HeadReader, Subject
from neuron_explainer.tokens import escape
from neuron_explainer.view import live_simulation, live_table
from neuron_explainer.view.contract import ACTIVATION_DIGITS, Unavailable, significant
from neuron_explainer.view.live_simulation import Hypothesis
from neuron_explainer.view.live_subject import Subjects, Window, windows
from neuron_explainer.view.live_worker import Emit, Line, Turns, Worker
from neuron_explainer.workspace import Workspace

LONGEST_TEXT = 20_000  # characters
LONGEST_EXPLANATION = 60_000  # characters; a table has many rows, and a body its limit


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Which models are at hand, and how long they may take."""

    subject: SubjectSettings = field(default_factory=SubjectSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    reading_seconds: float = 60.0  # of typed text, once the model is loaded
    simulating_seconds: float = 600.0
    load: Callable[[SubjectSettings], Subject] = field(default=load_subject)


class Live:
    """The models at hand, each used by one request at a time, in a thread of their own."""

    def __init__(self, workspace: Workspace, settings: LiveSettings) -> None:
        """Nothing is loaded yet. Raises ConfigError and SubjectError for settings of no use."""
        if settings.model.in_files:
            raise ConfigError("the viewer asks at once, without batch files: --llm openai/MODEL")
        _check_name(workspace, settings.subject)
        self.workspace = workspace
        self.worker = Worker()
        self._settings = settings
        self._subjects = Subjects(settings.subject, settings.load)
        self._reading, self._simulating = Turns(), Turns()  # a subject is no simulator's model
        self._llm: Stack | None = None
        self._open = AsyncExitStack()

    @property
    def llm(self) -> str | None:
        """The language model that was named."""
        return self._settings.model.llm

    def unable(self, records: RecordSet) -> Line | None:
        """Why no text can be run for these records, and what to run; None where it can."""
        try:
            self._subjects.require(records)
        except Unavailable as error:
            return {"error": str(error), "run": error.run}
        return None

    async def activations(
        self,
        records: RecordSet,
        neuron: int,
        text: str,
        query: tuple[int, int] | None,
        emit: Emit,
    ) -> None:
        """Emit a neuron's activations on `text`, one window after the other.

        Of a head: how strongly it writes at each token, for the key it writes most for; or, with a
        `query` (window, position), what it writes there for each key. Raises Unavailable,
        UserError, and Unavailable when it takes too long.
        """
        records.check(neuron)
        async with self._reading.turn(emit):
            if not self._subjects.holds(records):
                emit({"loading": records.subject})
            subject = await self.worker.computed(lambda: self._subjects.subject(records))
            async with _at_most(self._settings.reading_seconds, "type less text"):
                for place, window in enumerate(windows(records, subject, text)):
                    if query is None or place == query[0]:
                        read = partial(_read, subject, records, neuron, window, query)
                        emit(await self.worker.computed(read))  # it stops here when the page goes

    async def forecast(self, asked: Hypothesis) -> Line:
        """What simulating `asked` would cost; nothing is sent. Raises UserError."""
        asked.records.check(asked.neuron)
        llm = await self._model(asked.simulator)
        return await live_simulation.forecast(self.workspace, asked, llm)

    async def simulate(self, asked: Hypothesis, emit: Emit) -> None:
        """Emit predictions and scores. Raises NeuronFailure and UserError."""
        asked.records.check(asked.neuron)
        async with self._simulating.turn(emit):
            llm = await self._model(asked.simulator)
            async with _at_most(self._settings.simulating_seconds, "choose a faster simulator"):
                await live_simulation.simulate(self.workspace, asked, llm, emit)

    def close(self) -> None:
        """Stop all work and let go of the models."""
        self.worker.close(self._open.aclose())

    async def _model(self, simulator: str) -> Stack | None:
        """The language model, opened once, where the simulator needs it. Raises LLMError."""
        if not live_simulation.needs_llm(simulator):
            return None
        if self.llm is None:
            raise LLMError(
                f"{simulator} needs a language model: neuron-explainer view --llm openai/MODEL"
            )
        if self._llm is None:
            stack = opened(self._settings.model, self.workspace.root)
            self._llm = await self._open.enter_async_context(stack)
        return self._llm


def start_of(run: Run, records: RecordSet, neuron: int) -> Line:
    """A run's own explanation as one types it: the text, and the table where there is one.

    Raises UserError where the run cannot be read.
    """
    records.check(neuron)
    found = run.explanation(NeuronId(records.subject, records.site, neuron))
    if found is None or found.table is None:
        return {"text": found and found.text, "table": None, "left_out": 0}
    table, left_out = live_table.written(found.table, LONGEST_EXPLANATION)
    return {"text": found.text, "table": table, "left_out": left_out}


def _check_name(workspace: Workspace, subject: SubjectSettings) -> None:
    if subject.model and not (workspace.data / subject.folder_name).is_dir():
        known = sorted(path.name for path in workspace.data.iterdir() if path.is_dir())
        raise ConfigError(
            f"no records of '{subject.folder_name}' are in {workspace.data}: --name takes one of "
            f"{', '.join(known) or 'none: collect first'}"
        )


@asynccontextmanager
async def _at_most(seconds: float, advice: str) -> AsyncIterator[None]:
    """Raises Unavailable when the block takes longer."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        said = f"this took more than {seconds:g} seconds and was stopped: {advice}"
        raise Unavailable(408, said) from error


def _read(
    subject: Subject,
    records: RecordSet,
    neuron: int,
    window: Window,
    query: tuple[int, int] | None,
) -> Line:
    """One window's line."""
    from neuron_explainer.subjects import one_sequence

    line: Line = {
        "tokens": [escape(token) for token in window.tokens],
        "unscored": np.flatnonzero(~window.scored),
    }
    if not is_pattern(records.site):
        values = one_sequence.activations_on(subject, window.ids, records.site, neuron)
        return {**line, "activations": significant(values, ACTIVATION_DIGITS)}
    assert isinstance(subject, HeadReader)
    pairs = one_sequence.pairs_on(subject, window.ids, records.site, neuron)
    if query is not None:
        if query[1] >= len(pairs):
            raise Unavailable(422, f"this window has {len(pairs)} tokens: there is no {query[1]}")
        values = pairs[query[1]].copy()
        return {**line, "query": query[1], "activations": significant(values, ACTIVATION_DIGITS)}
    # a head that has nothing to do rests on the first token, which does not count: as in collect
    counting = np.where(window.scored[None, :], pairs, -1.0)
    keys = counting.argmax(axis=1)
    strongest = np.maximum(counting[np.arange(len(keys)), keys], 0.0)
    return {**line, "keys": keys, "activations": significant(strongest, ACTIVATION_DIGITS)}
