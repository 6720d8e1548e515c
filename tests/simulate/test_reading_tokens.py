"""A reading's tokens: those of each prompt tokenised whole, whatever its sequences hold."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import transformers
from hostile import sequences

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Capabilities, Masses, Reading
from neuron_explainer.llm.local_prompts import Tokens
from neuron_explainer.llm.local_states import Ids
from neuron_explainer.records import Explanation, NeuronId, Stimulus
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator
from neuron_explainer.subjects.tokenizer import HuggingFaceTokenizer


class Asked:
    """A model in process that is only asked."""

    model = "asked"
    reading: Reading

    async def capabilities(self) -> Capabilities:
        """It can be read."""
        return Capabilities(False, True, reading=True)

    async def complete(self, request: object) -> object:
        """Is not called."""
        raise NotImplementedError

    async def read(self, reading: Reading) -> Masses:
        """Keeps what is asked."""
        self.reading = reading
        raise NeuronFailure("asked", "nothing is answered")

    async def close(self) -> None:
        """Nothing is open."""


def asked(texts: Sequence[Sequence[bytes]]) -> Reading:
    llm = Asked()
    stimuli = [Stimulus(tuple(text), np.ones(len(text), np.bool_)) for text in texts]
    explanation = Explanation(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), "test", "10 words")
    simulator = AllAtOnceSimulator(llm, few_shot=1)  # type: ignore[arg-type]
    with pytest.raises(NeuronFailure, match="nothing is answered"):
        asyncio.run(simulator.simulate(explanation, stimuli))
    return llm.reading


class Counting(Tokens):
    """Counts what is tokenised whole."""

    wholes = 0

    def encoded(self, texts: Sequence[str]) -> list[Ids]:
        """As it is."""
        self.wholes += len(texts)
        return super().encoded(texts)


@pytest.mark.parametrize(
    ("model", "alone"), [("gpt2-local", True), ("stories260K/hf", False)], ids=["bytes", "pieces"]
)
def test_the_tokens_are_those_of_each_prompt_tokenised_whole(
    assets: Path, model: str, alone: bool
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(assets / model)
    tokens = Counting(tokenizer, HuggingFaceTokenizer(tokenizer, 4096).vocabulary, None)
    texts = sequences(200)
    _, task = tokens.task(asked(texts), threading.Event())
    wholes = tokenizer([prompt.text for prompt in task.prompts]).input_ids
    for prompt, ids, text in zip(task.prompts, wholes, texts, strict=True):
        assert prompt.ids.tolist() == ids
        assert prompt.read.tolist() == [True] * len(text)
        assert [prompt.text[end : end + 8] for end in prompt.ends] == [" unknown"] * len(text)
    tokenised_whole = tokens.wholes >= len(texts)
    assert tokenised_whole is not alone  # where a body alone has the same tokens, only one is
