"""What prompts take, counted with GPT-2's tokenizer over real text in 64-token records."""

from pathlib import Path

import numpy as np
import pytest
from canned_llm import CHAT, PLAIN, CannedLLM, neuron, record
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from neuron_explainer.conversation import estimated_tokens
from neuron_explainer.explain.asking import Question, as_prompt
from neuron_explainer.explain.highlight import Highlight
from neuron_explainer.explain.max_act_logits import MaxActLogits
from neuron_explainer.explain.shown import choose
from neuron_explainer.explain.token_activation import TokenActivation
from neuron_explainer.llm.base import Capabilities
from neuron_explainer.records import NeuronRecord

RECORDS, TOKENS = 5, 64
FRAME = 4  # tokens around a chat message


@pytest.fixture(scope="module")
def tokenizer(assets: Path) -> Tokenizer:
    folder = assets / "gpt2-bpe"
    if not (folder / "vocab.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    made = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture(scope="module")
def excerpts(assets: Path, tokenizer: Tokenizer) -> list[list[str]]:
    """Each token as text; those that are parts of a character are left out with their excerpt."""
    text = (assets / "text" / "inaugural.txt").read_text("utf-8")[:60_000]
    ids = tokenizer.encode(text).ids
    found = [ids[begin : begin + TOKENS] for begin in range(0, len(ids) - TOKENS, TOKENS)]
    return [[tokenizer.decode([token]) for token in excerpt] for excerpt in found]


def neurons(excerpts: list[list[str]], density: float) -> list[NeuronRecord]:
    """Ten neurons that fire on this share of all tokens, wherever they stand."""
    made = []
    for seed in range(10):
        chance = np.random.default_rng(seed)
        chosen = chance.choice(len(excerpts), RECORDS, replace=False)
        activations = [
            np.where(chance.random(TOKENS) < density, chance.gamma(2, 2, TOKENS), 0.0)
            for _ in chosen
        ]
        for place, values in enumerate(activations):
            values[chance.integers(TOKENS)] = 12.0 - place
        made.append(
            neuron(
                *(
                    record(excerpts[excerpt], values.tolist(), sequence=int(excerpt))
                    for excerpt, values in zip(chosen, activations, strict=True)
                )
            )
        )
    return made


def measured(tokenizer: Tokenizer, question: Question, able: Capabilities = CHAT) -> int:
    prompt = as_prompt(question, len(question.examples), question.items, able.chat)
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    return sum(len(tokenizer.encode(text).ids) + FRAME for text in texts)


@pytest.mark.parametrize("density", [0.02, 0.06, 0.15])
def test_highlight_takes_at_most_1100_tokens_with_its_examples(
    tokenizer: Tokenizer, excerpts: list[list[str]], density: float
) -> None:
    explainer = Highlight(llm=CannedLLM())
    for about in neurons(excerpts, density):
        question = explainer.question(choose(about, RECORDS))
        assert len(question.examples) == explainer.few_shot
        assert measured(tokenizer, question) <= 1_100


def test_highlight_takes_less_than_half_of_a_list_of_tokens(
    tokenizer: Tokenizer, excerpts: list[list[str]]
) -> None:
    marked = Highlight(llm=CannedLLM(), few_shot=3)
    listed = TokenActivation(llm=CannedLLM(), few_shot=3)
    for about in neurons(excerpts, 0.06):
        shown = choose(about, RECORDS)
        sizes = [measured(tokenizer, one.question(shown)) for one in (marked, listed)]
        assert sizes[1] / sizes[0] >= 2.2


@pytest.mark.parametrize("able", [CHAT, PLAIN])
@pytest.mark.parametrize("explainer", [Highlight, TokenActivation, MaxActLogits])
def test_the_estimate_of_a_prompts_size_errs_on_the_high_side_but_not_by_far(
    tokenizer: Tokenizer,
    excerpts: list[list[str]],
    able: Capabilities,
    explainer: type[Highlight | TokenActivation | MaxActLogits],
) -> None:
    for about in neurons(excerpts, 0.15):
        question = explainer(llm=CannedLLM()).question(choose(about, RECORDS))
        prompt = as_prompt(question, len(question.examples), question.items, able.chat)
        exact = measured(tokenizer, question, able)
        assert exact <= estimated_tokens(prompt) <= 1.8 * exact
