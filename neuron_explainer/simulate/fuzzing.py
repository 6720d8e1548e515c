"""Are the highlighted tokens those at which the neuron fires? Asked about several texts a request.

Fuzzing scoring of Paulo et al. 2024, "Automatically interpreting millions of features in large
language models". What is highlighted, rightly or wrongly, comes with the stimulus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer.few_shot import FewShotNeuron, load_few_shot
from neuron_explainer.records import Stimulus
from neuron_explainer.simulate.marking import elsewhere
from neuron_explainer.simulate.rendering import render_marked, shown
from neuron_explainer.simulate.replies import Form
from neuron_explainer.simulate.verdicts import Example, Judged, VerdictSimulator


@dataclass(frozen=True, slots=True)
class FuzzingSimulator(VerdictSimulator):
    """Told what a neuron responds to, says of each highlighted sequence whether it is right."""

    name = "fuzzing"
    form = Form("verdicts", "correct", (True, False), complete=True)
    highlights: ClassVar[bool] = True

    @staticmethod
    def text(stimulus: Stimulus) -> str | None:
        """The text with its highlighted stretches marked; None without any."""
        if stimulus.highlighted is None:
            return None
        part = shown(stimulus)
        return render_marked(stimulus.tokens[part], stimulus.highlighted[part])

    @staticmethod
    def examples(folder: Path | None) -> Sequence[Example]:
        """Every text of a neuron once, marked in turn where it fires and where it does not."""
        known = load_few_shot(folder)
        return [(neuron.explanation, _judged(neuron, at)) for at, neuron in enumerate(known)]


def _judged(neuron: FewShotNeuron, number: int) -> Sequence[Judged]:
    judged = []
    for place, (tokens, activations) in enumerate(neuron.records):
        fires = np.array(activations) > 0
        genuine = (number + place) % 2 == 0
        marked = fires if genuine else elsewhere(fires, ~fires, np.random.default_rng(place))
        if marked is not None:
            text = render_marked([token.encode() for token in tokens], marked)
            judged.append((text, genuine))
    return judged
