"""What the card states: read from the manifests and tables of a run, computed once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from neuron_explainer import __version__
from neuron_explainer.config import ScoreSettings
from neuron_explainer.publish.manifests import Made, made_of
from neuron_explainer.publish.parts import Written
from neuron_explainer.publish.readiness import Lack
from neuron_explainer.publish.settings import PublishSettings
from neuron_explainer.publish.tables import SCORE_TABLES
from neuron_explainer.records import Explanation, NeuronId
from neuron_explainer.runner import count_causes
from neuron_explainer.runs import Run
from neuron_explainer.score.summary import Row, remarks, rows_of


@dataclass(frozen=True, slots=True)
class Judge:
    """Whose score the card shows beside explanations, and which."""

    simulator: str
    column: str = "correlation_top_and_random"  # of the scores
    title: str = "correlation"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the card says, apart from its prose."""

    run: str
    subject: str
    settings: PublishSettings
    configs: Mapping[str, Written]
    lacks: Sequence[Lack]
    made: Sequence[Made]
    neurons: Mapping[str, tuple[int, int]]  # explained and not, by site
    failures: Mapping[tuple[str, str], int]  # by stage (or simulator) and cause
    scores: Mapping[str, Sequence[Row]]  # by split
    remarks: Mapping[str, Sequence[str]]  # what the tables of scores cannot say, by split
    examples: Sequence[tuple[Explanation, float | None]]  # and its score
    package_version: str = __version__

    def of(self, stage: str) -> list[Made]:
        """The folders that one stage made."""
        return [made for made in self.made if made.stage == stage]

    @property
    def explainer(self) -> Made:
        """The run's own folder."""
        return self.of("explain")[0]

    @property
    def imported(self) -> bool:
        """Whether the run was made by others, so that how is not known here."""
        return "format" in self.explainer.config

    @property
    def title(self) -> str:
        """What the dataset is called."""
        return self.settings.name or self.run

    @property
    def judge(self) -> Judge | None:
        """The first simulator with a correlation that is no null, else the first with an AUROC."""
        return _judge(self.run, self.scores.get("valid", ()))

    @property
    def rows(self) -> int:
        """Of all configs together."""
        return sum(written.rows for written in self.configs.values())


def facts_of(
    run: Run,
    settings: PublishSettings,
    configs: Mapping[str, Written],
    lacks: Sequence[Lack],
) -> Facts:
    """Read what the card needs. Raises DataError when a shard is damaged."""
    scores = {split: _scores(run, split) for split in SCORE_TABLES.values()}
    return Facts(
        run.name,
        run.subject,
        settings,
        configs,
        lacks,
        made_of(run),
        {site: _counts(run, site) for site in run.sites()},
        dict(sorted(_failures(run))),
        {split: rows for split, rows in scores.items() if rows},
        {split: remarks(run, rows) for split, rows in scores.items()},
        list(_examples(run, _judge(run.name, scores["valid"]))),
    )


def _scores(run: Run, split: Any) -> list[Row]:
    return rows_of(run, ScoreSettings(split=split))


def _counts(run: Run, site: str) -> tuple[int, int]:
    """How many neurons have an explanation, and how many a failure instead."""
    shards = run.folder.manifest()["shards"]
    explained, failed = (
        sum(shards[file]["rows"] for _, file in run.folder.shards(f"{site}/{table}"))
        for table in ("explanations", "failures")
    )
    return explained, failed


def _failures(run: Run) -> Iterator[tuple[tuple[str, str], int]]:
    places = [("explain", run.folder)]
    places += [(f"simulate, {name}", run.simulations(name)) for name in run.simulators()]
    for place, folder in places:
        for cause, count in count_causes(folder, run.sites()).items():
            yield (place, cause), count


def _examples(run: Run, judge: Judge | None) -> Iterator[tuple[Explanation, float | None]]:
    """The first neuron of each site that has an explanation: not chosen by its score."""
    for site in run.sites():
        for _, file in run.folder.shards(f"{site}/explanations"):
            neurons = run.folder.read(file, ["neuron"])["neuron"]
            if len(neurons):
                explanation = run.explanation(NeuronId(run.subject, site, neurons[0].as_py()))
                if explanation is not None:
                    yield explanation, _score(run, judge, explanation.neuron)
                break


def _score(run: Run, judge: Judge | None, neuron: NeuronId) -> float | None:
    if judge is None:
        return None
    folder, name = run.simulations(judge.simulator), f"{neuron.site}/scores"
    if not any(neuron.index in shard for shard, _ in folder.shards(name)):
        return None
    rows = folder.read_neuron(name, neuron.index).to_pylist()
    return rows[0].get(judge.column) if rows else None


def _judge(run: str, rows: Sequence[Row]) -> Judge | None:
    mine = [row for row in rows if row.run == run and not row.null]
    of_tokens = (Judge(row.simulator) for row in mine if row.correlation)
    of_sequences = (
        Judge(row.simulator, "auroc_top_and_random", "AUROC") for row in mine if row.verdicts
    )
    return next(chain(of_tokens, of_sequences), None)
