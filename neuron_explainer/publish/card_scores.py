"""The card's table of scores: with intervals, beside baselines and nulls."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from neuron_explainer.publish.facts import Facts
from neuron_explainer.publish.markdown import bullets, code, line, table
from neuron_explainer.score.summary import NULLS, WHOLE_TABLE_LABEL, Row, cells

_MEANING = (
    "Correlation (Pearson's r) of predicted and true activations, of each neuron over all tokens "
    "of its records in the split: top and random records together, and random records alone. The "
    "table gives the mean over neurons with a 95 % interval (bootstrap over neurons), the median, "
    "the share of all neurons above a threshold, and the share whose score is undefined, which the "
    "mean leaves out. The config `scores` has every score of every neuron."
)
_COLUMNS = ("label", "n", "mean", "median", "0.3", "0.5", "0.7", "undefined", "random")
_HEAD = (
    *("simulator", "neurons", "mean [95 %]", "median", "> .3", "> .5", "> .7", "undefined"),
    "random only [95 %]",
)
_NULL_MEANING = {
    "constant": "the same prediction everywhere, whose correlation is undefined by definition",
    "shuffled": "each neuron simulated with the explanation of another one of its site",
}


def sections(facts: Facts) -> Iterator[str]:
    """In order."""
    for split, rows in facts.scores.items():
        yield _scores(split, rows)


def _scores(split: str, rows: Sequence[Row]) -> str:
    parts = [f"## Scores, split {split}", _MEANING]
    for site, group in groupby(rows, key=lambda row: row.site):
        figures = [_figures(row) for row in group]
        parts += [f"### {code(site)}", table(_HEAD, figures, "lrrrrrrrr")]
    labels = {row.label for row in rows}
    notes = [f"*{name}*: a null, {_NULL_MEANING[name]}." for name in NULLS if name in labels]
    if WHOLE_TABLE_LABEL in labels:
        notes.append(
            f"{WHOLE_TABLE_LABEL}: a baseline that predicts each token's mean activation over the "
            "corpus, less the neuron's own held-out records, without a language model."
        )
    notes += _undefined(rows)
    return "\n\n".join([*parts, bullets(notes)] if notes else parts)


def _figures(row: Row) -> list[str]:
    label = f"*{line(row.label)}*" if row.label in NULLS else line(row.label)
    shown = cells(row) | {"label": label}
    return [str(shown[name]) for name in _COLUMNS]


def _undefined(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for choice, made in row.correlation.items():
            if row.label not in NULLS and made.undefined_share and made.reasons:
                reasons = ", ".join(f"{line(why)}: {n:,}" for why, n in made.reasons.items())
                zero = made.mean_undefined_as_zero
                mean = "" if zero is None else f"; with undefined as 0 the mean is {zero:.3f}"
                yield (
                    f"{code(row.site)}, {line(row.label)}, {choice.replace('_', ' ')}: "
                    f"{made.undefined_share:.1%} undefined ({reasons}){mean}."
                )
