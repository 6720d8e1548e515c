"""The example neurons show what their explanations say, and damaged ones are refused."""

import re
from pathlib import Path

import pytest

from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import PromptError
from neuron_explainer.few_shot import FewShotNeuron, load_few_shot

EXAMPLES = load_few_shot()


def expected_to_fire(neuron: FewShotNeuron, tokens: tuple[str, ...]) -> list[bool]:
    """Where a neuron must fire if its explanation is right."""
    fires, within = [], False
    for token in tokens:
        if neuron.inside and token == neuron.inside[1]:
            within = False
        fires.append(within or token in neuron.fires)
        if neuron.inside and token == neuron.inside[0]:
            within = True
    return fires


def test_there_are_at_least_four_varied_examples() -> None:
    assert len(EXAMPLES) >= 4
    assert any(neuron.inside for neuron in EXAMPLES)
    assert len({neuron.explanation for neuron in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_an_example_fires_exactly_where_its_explanation_says(neuron: FewShotNeuron) -> None:
    for tokens, activations in neuron.records:
        assert [activation > 0 for activation in activations] == expected_to_fire(neuron, tokens)


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_every_token_that_an_explanation_quotes_is_shown_firing(neuron: FewShotNeuron) -> None:
    shown = {
        token.strip(): activation
        for tokens, activations in neuron.records
        for token, activation in zip(tokens, activations, strict=True)
    }
    for quoted in re.findall("“(.+?)”", neuron.explanation):
        assert shown[quoted] > 0


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_an_example_reaches_the_top_of_the_scale_and_stays_on_it(neuron: FewShotNeuron) -> None:
    levels = [level for _, activations in neuron.records for level in activations]
    assert min(levels) == 0
    assert max(levels) == 10


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_every_token_that_an_example_claims_occurs_in_it(neuron: FewShotNeuron) -> None:
    shown = {token for tokens, _ in neuron.records for token in tokens}
    assert {*neuron.fires, *neuron.inside} <= shown


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_an_example_has_as_many_promoted_and_suppressed_tokens_as_a_neuron(
    neuron: FewShotNeuron,
) -> None:
    assert len(neuron.promoted) == CollectSettings().logit_tokens
    assert len(neuron.suppressed) >= 5
    tokens = (*neuron.promoted, *neuron.suppressed)
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("neuron", EXAMPLES, ids=lambda neuron: neuron.label)
def test_what_an_effect_quotes_is_promoted_and_more_than_one_token_is(
    neuron: FewShotNeuron,
) -> None:
    quoted = re.findall("“(.+?)”", neuron.effect)
    assert len(quoted) > 1
    assert set(quoted) <= {token.strip() for token in neuron.promoted}
    assert not set(quoted) & {token.strip() for token in neuron.suppressed}
    # as the prompt asks: the strongest tokens count most
    places = [[token.strip() for token in neuron.promoted].index(token) for token in quoted]
    assert min(places) == 0
    assert neuron.effect not in {neuron.explanation, neuron.label}
    assert not set(neuron.fires) & set(neuron.suppressed)


def write(folder: Path, content: str) -> Path:
    (folder / "few-shot").mkdir()
    (folder / "few-shot" / "own.toml").write_text(content, "utf-8")
    return folder


RECORD = '[[records]]\ntokens = ["a", ["b", 10]]\n'


def test_a_workspaces_own_examples_replace_those_of_the_package(tmp_path: Path) -> None:
    own = load_few_shot(write(tmp_path, f'explanation = "b"\nlabel = "b"\n{RECORD}'))
    assert own == (FewShotNeuron("b", ((("a", "b"), (0, 10)),), "b"),)


def test_a_folder_without_examples_leaves_the_packages_own(tmp_path: Path) -> None:
    assert load_few_shot(tmp_path) == EXAMPLES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'label = "b"\n{RECORD}', "has no 'explanation'"),
        (f'explanation = "b"\nlabel = ""\n{RECORD}', "label must be one line"),
        (f'explanation = "b"\nlabel = "b"\nfire = ["b"]\n{RECORD}', "'fire' is not one"),
        ('explanation = "b"\nlabel = "b"\n[[records]]\ntokens = [["b", 11]]', "not 0 to 10"),
        ('explanation = "b"\nlabel = "b"\n[[records]]\ntokens = [3]', "no example neuron"),
        ("explanation =", "no example neuron"),
        (f'explanation = "b"\nlabel = "b"\npromoted = ["c"]\n{RECORD}', "has no 'suppressed'"),
        (f'explanation = "b"\nlabel = "b"\neffect = "c"\n{RECORD}', "has no 'promoted'"),
        (
            'explanation = "b"\nlabel = "b"\neffect = "c"\nsuppressed = []\n'
            f'promoted = ["c", 3]\n{RECORD}',
            "promoted must be a list of tokens",
        ),
    ],
)
def test_a_damaged_example_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        load_few_shot(write(tmp_path, content))
    assert "own.toml" in str(caught.value)
