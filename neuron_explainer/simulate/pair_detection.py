"""Does the head write strongly for the marked query and key? Asked about several texts a request.

Detection, asked of pairs instead of texts: as in the scoring of attention heads of OpenAI's
transformer debugger, the model sees what the head is said to do and a text with one query and one
key marked, and says whether the head is strong there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.few_shot_heads import FewShotHead, load_few_shot_heads
from neuron_explainer.pair_text import marked, marked_pair
from neuron_explainer.records import Stimulus
from neuron_explainer.simulate.replies import Form
from neuron_explainer.simulate.verdicts import Example, Judged, VerdictSimulator


@dataclass(frozen=True, slots=True)
class PairDetectionSimulator(VerdictSimulator):
    """Told what an attention head connects, says of each marked pair whether it writes there."""

    name = "pair-detection"
    form = Form("verdicts", "writes", (True, False), complete=True)
    simulates: ClassVar = "heads"

    @staticmethod
    def text(stimulus: Stimulus) -> str | None:
        """The text with query and key marked. Raises NeuronFailure without a pair."""
        if stimulus.pair is None:
            raise NeuronFailure("no-pair", "the record is not one of an attention head")
        return marked_pair(stimulus.tokens, stimulus.scored, stimulus.pair)

    @staticmethod
    def examples(folder: Path | None) -> Sequence[Example]:
        """Every text of a head once, marked in turn at a strong pair and at a weak one."""
        heads = load_few_shot_heads(folder)
        return [(head.explanation, _judged(head, number)) for number, head in enumerate(heads)]


def _judged(head: FewShotHead, number: int) -> Sequence[Judged]:
    turns = [(number + place) % 2 == 0 for place in range(len(head.records))]
    return [
        (marked(shown.tokens, shown.strong if strong else shown.weak), strong)
        for shown, strong in zip(head.records, turns, strict=True)
    ]
