"""The card's tables of scores: with intervals, beside baselines and nulls."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from neuron_explainer.publish.facts import Facts
from neuron_explainer.publish.markdown import bullets, code, line, table
from neuron_explainer.score.summary import (
    WHOLE_TABLE_LABEL,
    Row,
    cells,
    verdict_cells,
)

_CORRELATIONS = (
    "Correlation (Pearson's r) of predicted and true activations, of each neuron over all tokens "
    "of its records in the split: top and random records together, and random records alone. The "
    "table gives the mean over neurons with a 95 % interval, the median, the share of all neurons "
    "above a threshold, and the share whose score is undefined, which the mean leaves out. The "
    "config `scores` has every score of every neuron."
)
_VERDICTS = (
    "Balanced accuracy and AUROC of a simulator that says of whole sequences whether the neuron "
    "fires there, as means over neurons with a 95 % interval. Chance is 0.5 for both."
)
_ON_CALIBRATION = (
    "Calibrations are fitted on this split, and where explanations were selected, they were "
    "selected on it: its scores are higher than an explanation is worth."
)
_COLUMNS = {
    "label": "simulator",
    "n": "neurons",
    "mean": "mean [95 %]",
    "median": "median",
    "0.3": "> .3",
    "0.5": "> .5",
    "0.7": "> .7",
    "undefined": "undefined",
    "random": "random only [95 %]",
}
_VERDICT_COLUMNS = {
    "label": "simulator",
    "n": "neurons",
    "balanced_accuracy": "balanced accuracy [95 %]",
    "auroc": "AUROC [95 %]",
    "undefined": "undefined",
}
_NULL_MEANING = {
    "constant": "a null, the same prediction everywhere, whose correlation is undefined by "
    "definition",
    "pair-distance": "a null, the nearer query and key the stronger, whatever the explanation",
    "shuffled": "a null, each neuron simulated with the explanation of another one of its site",
}


def sections(facts: Facts) -> Iterator[str]:
    """In order."""
    for split, rows in facts.scores.items():
        parts = [f"## Scores, split {split}"]
        if split == "calibration":
            parts.append(_ON_CALIBRATION)
        if correlated := [(row.site, row.null, cells(row)) for row in rows if row.correlation]:
            parts += [_CORRELATIONS, *_by_site(correlated, _COLUMNS)]
        if judged := [(row.site, row.null, verdict_cells(row)) for row in rows if row.verdicts]:
            parts += [_VERDICTS, *_by_site(judged, _VERDICT_COLUMNS)]
        notes = [*_labels(rows), *map(line, facts.remarks[split])]
        yield "\n\n".join([*parts, bullets(notes)] if notes else parts)


def _by_site(
    rows: Sequence[tuple[str, bool, Mapping[str, object]]], columns: Mapping[str, str]
) -> Iterator[str]:
    for site, group in groupby(rows, lambda row: row[0]):
        yield f"### {code(site)}"
        figures = [_figures(null, shown, columns) for _, null, shown in group]
        yield table(list(columns.values()), figures, "l".ljust(len(columns), "r"))


def _figures(null: bool, shown: Mapping[str, object], columns: Mapping[str, str]) -> list[str]:
    label = line(str(shown["label"]))
    values = {**shown, "label": f"*{label}*" if null else label}
    return [str(values[name]) for name in columns]


def _labels(rows: Sequence[Row]) -> Iterator[str]:
    """What the labels mean."""
    labels = {row.label: row.null for row in rows}
    for label, null in labels.items():
        if null:
            meaning = _NULL_MEANING.get(label, "a null, which knows nothing of the neuron")
            yield f"*{line(label)}*: {meaning}."
    if WHOLE_TABLE_LABEL in labels:
        yield (
            f"{WHOLE_TABLE_LABEL}: a baseline that predicts each token's mean activation over the "
            "corpus, less the neuron's own held-out records, without a language model."
        )
