"""Is the neuron active anywhere in this text? Asked about several texts a request.

Detection scoring of Paulo et al. 2024, "Automatically interpreting millions of features in large
language models".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuron_explainer.few_shot import FewShotNeuron, load_few_shot
from neuron_explainer.records import Stimulus
from neuron_explainer.simulate.rendering import render_text, shown
from neuron_explainer.simulate.replies import Form
from neuron_explainer.simulate.verdicts import Example, Judged, VerdictSimulator


@dataclass(frozen=True, slots=True)
class DetectionSimulator(VerdictSimulator):
    """Told what a neuron responds to, says of each sequence whether the neuron fires in it."""

    name = "detection"
    form = Form("verdicts", "fires", (True, False), complete=True)

    @staticmethod
    def text(stimulus: Stimulus) -> str | None:
        """The whole text; None without a scored token."""
        return render_text(stimulus.tokens[shown(stimulus)]) if stimulus.scored.any() else None

    @staticmethod
    def examples(folder: Path | None) -> Sequence[Example]:
        """Texts on which a neuron fires, and others' texts on which it is known to be silent."""
        known = load_few_shot(folder)
        return [(neuron.explanation, _judged(neuron, known)) for neuron in known]


def _judged(neuron: FewShotNeuron, known: Sequence[FewShotNeuron]) -> Sequence[Judged]:
    active = [(record[0], True) for record in neuron.records[:2]]
    others = (record[0] for other in known if other is not neuron for record in other.records)
    silent = [(tokens, False) for tokens in others if _silent(neuron, tokens)][: len(active)]
    return [
        (render_text([token.encode() for token in tokens]), fires)
        for tokens, fires in active + silent
    ]


def _silent(neuron: FewShotNeuron, tokens: Sequence[str]) -> bool:
    telling = {*neuron.fires, *neuron.inside[:1]}
    return bool(telling) and telling.isdisjoint(tokens)
