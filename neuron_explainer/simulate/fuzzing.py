"""Are the highlighted tokens those at which the neuron fires? Asked about several texts a request.

Fuzzing scoring of Paulo et al. 2024, "Automatically interpreting millions of features in large
language models". What is highlighted, rightly or wrongly, comes with the stimulus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuron_explainer.few_shot import FewShotNeuron
from neuron_explainer.records import Stimulus
from neuron_explainer.simulate.marking import elsewhere
from neuron_explainer.simulate.rendering import render_marked, shown
from neuron_explainer.simulate.replies import Form
from neuron_explainer.simulate.verdicts import Judged, VerdictSimulator


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
    def example(known: Sequence[FewShotNeuron], number: int) -> Sequence[Judged]:
        """Every text of a neuron once, marked in turn where it fires and where it does not."""
        judged = []
        for place, (tokens, activations) in enumerate(known[number].records):
            fires = np.array(activations) > 0
            genuine = (number + place) % 2 == 0
            marked = fires if genuine else elsewhere(fires, ~fires, np.random.default_rng(place))
            if marked is not None:
                text = render_marked([token.encode() for token in tokens], marked)
                judged.append((text, genuine))
        return judged
