"""A run over attention heads, published: its pairs, its scores, and what it is refused by."""

import re
from pathlib import Path

import planted_head
import pytest
from commands import Command, in_process
from planted_head import SITE

import neuron_explainer
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace


@pytest.fixture
def scored(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Workspace, Command]:
    """The planted heads, explained, simulated and scored, and the command line there."""
    here = planted_head.collected(tiny, tmp_path)
    monkeypatch.chdir(here.root)
    command = in_process(monkeypatch, capsys)
    for arguments in (
        ("explain", "--subject", "planted", "--explainer", "pair-lookup", "--run", "heads"),
        ("simulate", "heads", "--simulator", "pair-lookup"),
        ("score", "heads"),
    ):
        done = command(*arguments)
        assert (done.code, done.err) == (0, "")
    return here, command


def test_a_published_run_over_heads_has_their_pairs_and_shows_their_scores(
    scored: tuple[Workspace, Command],
) -> None:
    here, command = scored
    assert command("publish", "heads", "--to", "published").code == 0
    run = neuron_explainer.load_run("published")
    records = RecordSet(here.data, "planted", SITE)
    loaded = list(run.iterate_records())
    expected = [record for head in range(2) for record in records.neuron(head).records]
    assert sorted(record.pair or () for _, record in loaded) == sorted(
        record.pair or () for record in expected
    )
    assert all(record.pair for _, record in loaded)
    for _, record in loaded:
        assert record.pair is not None
        assert record.maximum == record.activations[record.pair[0]]
    card = Path("published/README.md").read_text()
    assert "| neuron | explanation | AUROC (pair-lookup) |" in card
    (asked,) = re.findall(r"SELECT site, neuron, text, (\w+)\n", card)
    assert f"ORDER BY {asked} DESC" in card
    assert asked in run.scores.column_names
    assert (
        run.records.column_names
        == neuron_explainer.load_run("explanations/heads").records.column_names
    )


def test_where_there_is_no_place_for_heads_one_line_says_so(
    scored: tuple[Workspace, Command],
) -> None:
    _, command = scored
    for verb in (
        ("export", "neuronpedia", "heads", "--to", "out"),
        ("upload", "neuronpedia", "heads"),
    ):
        done = command(*verb, "--model-id", "m", "--source", "0-heads-acme")
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert "an activation a token, and those of attention heads are of pairs" in done.err
    assert not Path("out").exists()
    assert "nothing to check" in command("score", "heads", "--checks").out
