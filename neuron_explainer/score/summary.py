"""What a run's scores come to, layer by layer, beside its baselines and nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from neuron_explainer.config import ScoreSettings
from neuron_explainer.runner import count_causes
from neuron_explainer.runs import Run, all_runs
from neuron_explainer.score.base import Scores
from neuron_explainer.score.classification import CHANCE
from neuron_explainer.score.sequences import SEQUENCE_METRICS
from neuron_explainer.score.stage import (
    CHOICES,
    POPULATION,
    SiteScores,
    read_scores,
    table_name,
)
from neuron_explainer.score.statistics import Summary, summarise
from neuron_explainer.simulate.base import NULLS
from neuron_explainer.store import Folder

WHOLE_TABLE = {"explainer": "token-lookup", "table_size": "all"}
WHOLE_TABLE_LABEL = "whole token table"
_CORRELATION = {choice: f"correlation_{choice}" for choice in CHOICES}
_VERDICTS = {metric: f"{metric}_top_and_random" for metric in SEQUENCE_METRICS}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: one run and simulator on one site."""

    site: str
    run: str
    simulator: str
    label: str
    null: bool  # whether it knows nothing of the neuron
    correlation: Mapping[str, Summary]  # by choice of records; none where sequences are judged
    verdicts: Mapping[str, Summary]  # by metric; only where sequences are judged
    scores: Mapping[str, Scores]  # all of them
    population: Summary | None  # correlation over the whole corpus
    failures: Mapping[str, int]  # neurons without a simulation, by cause


def rows_of(run: Run, settings: ScoreSettings) -> list[Row]:
    """A row for every simulator that has been scored, and for the whole-table reference."""
    rows = []
    for source, label in [(run, ""), *((other, WHOLE_TABLE_LABEL) for other in references(run))]:
        for simulator in source.simulators():
            if label and simulator != "token-lookup":
                continue
            folder = source.simulations(simulator)
            for site in run.sites():
                if folder.shards(f"{site}/{table_name(settings)}"):
                    scores = read_scores(folder, site, settings)
                    shown = label or simulator
                    null = shown in NULLS or _is_shuffled(folder)
                    about = (source.name, simulator, shown, null)
                    rows.append(_row(scores, about, count_causes(folder, [site]), settings.seed))
    if not any(row.correlation for row in rows if row.run == run.name):
        rows = [row for row in rows if row.run == run.name]  # references say nothing about verdicts
    order = {site: place for place, site in enumerate(run.sites())}
    return sorted(rows, key=lambda row: (order[row.site], _rank(row)))


def _rank(row: Row) -> int:
    last = (WHOLE_TABLE_LABEL, *NULLS)
    return 1 + last.index(row.label) if row.label in last else 0


def _is_whole_table(run: Run) -> bool:
    config = run.folder.manifest()["config"]
    return all(config.get(key) == value for key, value in WHOLE_TABLE.items())


def references(run: Run) -> list[Run]:
    """The runs that explain the same record sets by their whole token tables."""
    mine = run.folder.manifest().get("inputs", {}).items()
    return [
        other
        for other in all_runs(run.workspace)
        if other.name != run.name
        and _is_whole_table(other)
        and other.folder.manifest().get("inputs", {}).items() >= mine
    ]


def _is_shuffled(folder: Folder) -> bool:
    return bool(folder.manifest()["config"].get("shuffled"))


def _row(
    scores: SiteScores, about: tuple[str, str, str, bool], failures: Mapping[str, int], seed: int
) -> Row:
    """`about`: run, simulator, label and whether it is a null."""
    correlation, verdicts = (
        {
            key: summarise(scores.scores[name], seed)
            for key, name in names.items()
            if name in scores.scores
        }
        for names in (_CORRELATION, _VERDICTS)
    )
    found = scores.scores.get(POPULATION)
    population = None if found is None else summarise(found, seed)
    return Row(scores.site, *about, correlation, verdicts, scores.scores, population, failures)


def cells(row: Row) -> dict[str, object]:
    """A row of correlations as the terminal shows it."""
    main, random = (row.correlation[choice] for choice in CHOICES)
    shares = {str(limit): _percent(share) for limit, share in main.share_above.items()}
    return {
        "site": row.site,
        "label": row.label,
        "null": row.null,
        "n": f"{main.n:,}",
        "mean": _with_interval(main),
        "median": _figure(main.median),
        "undefined": _percent(main.undefined_share),
        "random": _with_interval(random),
        **shares,
    }


def verdict_cells(row: Row) -> dict[str, object]:
    """A row of scores of verdicts about sequences as the terminal shows it."""
    main = row.verdicts["auroc"]
    return {
        "site": row.site,
        "label": row.label,
        "null": row.null,
        "n": f"{main.n:,}",
        **{metric: _with_interval(made) for metric, made in row.verdicts.items()},
        "undefined": _percent(main.undefined_share),
    }


def _with_interval(summary: Summary) -> str:
    if summary.mean is None:
        return "undefined"
    if summary.interval is None:
        return _figure(summary.mean)
    low, high = (f"{end:.3f}".replace("0.", ".") for end in asdict(summary.interval).values())
    return f"{summary.mean:.3f} [{low} {high}]"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def as_json(row: Row, seed: int) -> dict[str, object]:
    """A row for programs, with every score and its interval."""
    about: dict[str, object] = {
        **{"site": row.site, "run": row.run, "simulator": row.simulator, "label": row.label},
        "failures": dict(row.failures),
    }
    scores = {name: asdict(summarise(figure, seed)) for name, figure in row.scores.items()}
    judged = {"predicts": "sequences", "chance": CHANCE} if row.verdicts else {"predicts": "tokens"}
    return {**about, **judged, "scores": scores}


def _over_corpus(rows: Sequence[Row]) -> list[str]:
    """One line a site: the means of what `score.population` estimates, where it can."""
    lines = []
    for site, group in groupby(rows, lambda row: row.site):
        known = {row.label: row.population for row in group if row.population is not None}
        means = [f"{label} {_with_interval(made)}" for label, made in known.items() if made.mean]
        if means:
            lines.append(f"{site}, correlation over the whole corpus: {', '.join(means)}")
    return lines


def remarks(run: Run, rows: Sequence[Row]) -> list[str]:
    """What the table cannot say: means that count undefined as 0, and a missing baseline."""
    lines = [
        f"{row.site}, {row.label}: {sum(row.failures.values()):,} neurons without a simulation "
        f"({', '.join(row.failures)}) are in no figure"
        for row in rows
        if row.failures
    ]
    lines += [
        f"{row.site}, {row.label}, {choice.replace('_', ' ')}: {made.undefined_share:.1%} "
        f"undefined ({', '.join(made.reasons)}); with undefined as 0 the mean is "
        f"{made.mean_undefined_as_zero:.3f}"
        for row in rows
        if not row.null
        for choice, made in row.correlation.items()
        if made.undefined_share and made.mean_undefined_as_zero is not None
    ]
    lines += _over_corpus(rows)
    lines += [
        f"{row.site}, {row.label}: {made.undefined_share:.1%} undefined ({', '.join(made.reasons)})"
        for row in rows
        for made in [row.verdicts.get("auroc")]
        if made is not None and made.undefined_share
    ]
    correlated = any(row.correlation for row in rows)
    if (
        correlated
        and not any(row.label == WHOLE_TABLE_LABEL for row in rows)
        and not _is_whole_table(run)
    ):
        lines.append(
            "no whole-table baseline: collect with --whole-table, then explain with "
            "--table-size all, simulate and score it"
        )
    return lines
