"""Our own runs as published files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_objects import neuron_record, write

from neuron_explainer import schemas
from neuron_explainer.errors import DataError
from neuron_explainer.interchange import openai
from neuron_explainer.interchange.openai_export import export_records, export_run
from neuron_explainer.interchange.openai_import import import_records
from neuron_explainer.interchange.sequences import token_bytes, token_text
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, NeuronId, Simulation
from neuron_explainer.runs import Run, explanation_table, simulation_table
from neuron_explainer.store import Folder, Shard
from neuron_explainer.workspace import Workspace

SITE = "blocks.3.mlp.hook_post"
LATENTS = "blocks.3.hook_resid_post/sae"
SPECIAL, BROKEN = b"<bos>", b"\xe2\x82"


def collected(root: Path, *sites: str, truth: Sequence[float] = (0.0, 1.0, 2.5)) -> None:
    """A record set a site, of one neuron with a top and a random valid record of three tokens.

    The first token is BOS; the last one is a part of a character.
    """
    home = root / "data" / "own"
    corpus = Folder(home / "corpus")
    corpus.open({"excludes_first": True})
    names = [SPECIAL, b" rain", BROKEN, b" sun"]
    vocabulary = [
        {"token": place, "bytes": name, "special": name == SPECIAL, "count": 1}
        for place, name in enumerate(names)
    ]
    corpus.write(
        {"vocabulary.parquet": pa.Table.from_pylist(vocabulary, schema=schemas.VOCABULARY)}
    )
    sequences = [{"document": 0, "start": 0, "tokens": ids} for ids in ([0, 1, 2], [0, 3, 2])]
    with pa.ipc.new_file(str(home / "corpus/sequences.arrow"), schemas.SEQUENCES) as writer:
        writer.write_table(pa.Table.from_pylist(sequences, schema=schemas.SEQUENCES))
    corpus.register("sequences.arrow", len(sequences))
    rows = [
        {"neuron": 0, "kind": kind, "rank": 0, "band": None, "split": "valid"}
        | {"sequence": place, "activations": [value * (place + 1) for value in truth]}
        for place, kind in enumerate(["top", "random"])
    ]
    records = pa.Table.from_pylist(rows, schema=schemas.records(pa.float32()))
    for site in sites:
        folder = Folder(home / site)
        folder.open({"site": site})
        folder.write({Shard(0, 1).file("records"): records})
        folder.update({"width": 1, "complete": True})


def simulated(root: Path, *sites: str, said: Sequence[float] = (9.0, 3.0, 7.0)) -> Run:
    """A run that explains the neuron of each site, with a simulator's predictions."""
    run = Run(Workspace(root), "mine")
    run.folder.open({"subject": "own"})
    scoring = run.simulations("guess")
    scoring.open({"simulator": "guess"})
    for site in sites:
        neuron = NeuronId("own", site, 0)
        explanation = Explanation(neuron, "guess", "words about the weather")
        records = RecordSet(root / "data", "own", site).neuron(0).records
        simulations = [Simulation(np.array(said, np.float32) / (place + 1)) for place in (0, 1)]
        run.folder.write(
            {f"{site}/{Shard(0, 1).file('explanations')}": explanation_table([explanation])}
        )
        scoring.write(
            {
                # the random record first: the export must put the top one before it
                f"{site}/{Shard(0, 1).file('simulations')}": simulation_table(
                    [0], [records[::-1]], [simulations[::-1]]
                )
            }
        )
    return run


def exported(to: Path) -> openai.ScoredSimulation:
    """The scored simulation of the neuron of `SITE`."""
    found = openai.load_as(
        openai.NeuronSimulationResults, (to / "explanations/3/0.jsonl").read_bytes()
    )
    assert found.neuron_id == openai.NeuronId(3, 0)
    (explanation,) = found.scored_explanations
    assert explanation.explanation == "words about the weather"
    return explanation.scored_simulation


def test_a_run_is_exported_with_its_records(tmp_path: Path) -> None:
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    result = export_run(tmp_path, "mine", "guess", tmp_path / "out")
    assert (result.records, result.explanations) == (1, 1)
    top, random = exported(tmp_path / "out").scored_sequence_simulations
    assert top.simulation.tokens == ("<bos>", " rain", "\\xe2\\x82")
    assert random.simulation.tokens == ("<bos>", " sun", "\\xe2\\x82")
    assert top.simulation.expected_activations == (9.0, 3.0, 7.0)
    assert top.simulation.activation_scale == "simulated_normalized_activations"
    assert random.true_activations == (0.0, 2.0, 5.0)
    record = openai.load_as(
        openai.NeuronRecord, (tmp_path / "out/collated-activations/3/0.json").read_bytes()
    )
    assert record.most_positive_activation_records[0].activations == (0.0, 1.0, 2.5)
    assert record.random_sample[0].tokens == ("<bos>", " sun", "\\xe2\\x82")


def test_scores_leave_out_what_is_shown_but_not_scored(tmp_path: Path) -> None:
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    export_run(tmp_path, "mine", "guess", tmp_path / "out")
    scored = exported(tmp_path / "out")
    expected = np.corrcoef([1.0, 2.5, 2.0, 5.0], [3.0, 7.0, 1.5, 3.5])[0, 1]
    assert scored.ev_correlation_score == pytest.approx(expected)
    top, random = scored.scored_sequence_simulations
    assert top.ev_correlation_score == pytest.approx(1.0)
    assert random.ev_correlation_score == pytest.approx(1.0)


def test_predictions_that_are_not_calibrated_have_no_explained_variance(tmp_path: Path) -> None:
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    export_run(tmp_path, "mine", "guess", tmp_path / "out")
    scored = exported(tmp_path / "out")
    first = scored.scored_sequence_simulations[0]
    assert (scored.rsquared_score, scored.absolute_dev_explained_score) == (None, None)
    assert (first.rsquared_score, first.absolute_dev_explained_score) == (None, None)


@pytest.mark.parametrize(
    ("truth", "said"),
    [([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]), ([9.0, 1.0, 2.0], [1.0, np.nan, np.nan])],
)
def test_a_score_that_cannot_be_had_is_null(
    tmp_path: Path, truth: list[float], said: list[float]
) -> None:
    collected(tmp_path, SITE, truth=truth)
    simulated(tmp_path, SITE, said=said)
    export_run(tmp_path, "mine", "guess", tmp_path / "out")
    scored = exported(tmp_path / "out")
    assert scored.ev_correlation_score is None
    expected = tuple(None if np.isnan(value) else value for value in said)
    assert scored.scored_sequence_simulations[0].simulation.expected_activations == expected


def test_two_sites_of_a_layer_do_not_overwrite_each_other(tmp_path: Path) -> None:
    collected(tmp_path, SITE, LATENTS)
    simulated(tmp_path, SITE, LATENTS)
    export_run(tmp_path, "mine", "guess", tmp_path / "out")
    export_records(tmp_path / "data", "own", tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.json*")}
    assert found == {
        f"{folder}/{file}"
        for folder in (SITE, LATENTS.replace("/", "__"))
        for file in ("explanations/3/0.jsonl", "collated-activations/3/0.json")
    }


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    written = []
    for _ in range(2):
        export_run(tmp_path, "mine", "guess", tmp_path / "out")
        files = [path for path in sorted(tmp_path.glob("out/**/*")) if path.is_file()]
        written.append([(path, path.read_bytes()) for path in files])
    assert written[0] == written[1]
    assert len(written[0]) == 2


def test_own_explanations_of_imported_records_are_exported_beside_them(tmp_path: Path) -> None:
    files = write(tmp_path / "in", neuron_record(3, 0))
    import_records(files, tmp_path / "data", "own")
    run = Run(Workspace(tmp_path), "mine")
    run.folder.open({"subject": "own"})
    explanation = Explanation(NeuronId("own", SITE, 0), "guess", "words about the weather")
    run.folder.write(
        {f"{SITE}/{Shard(0, 1).file('explanations')}": explanation_table([explanation])}
    )
    run.simulations("guess").open({"simulator": "guess"})
    export_run(tmp_path, "mine", "guess", tmp_path / "out")
    assert exported(tmp_path / "out") == openai.ScoredSimulation(())
    record = json.loads((tmp_path / "out/collated-activations/3/0.json").read_bytes())
    assert record == json.loads((files / "3/0.json").read_bytes())


def test_what_is_not_there_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run 'mine'"):
        export_run(tmp_path, "mine", "guess", tmp_path / "out")
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    with pytest.raises(DataError, match="holds no results"):
        export_run(tmp_path, "mine", "other", tmp_path / "out")
    with pytest.raises(DataError, match="holds no record sets"):
        export_records(tmp_path / "data", "nobody", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_simulations_of_other_records_are_refused(tmp_path: Path) -> None:
    collected(tmp_path, SITE)
    simulated(tmp_path, SITE)
    folder = RecordSet(tmp_path / "data", "own", SITE).folder
    file = Shard(0, 1).file("records")
    folder.write({file: folder.read(file).slice(1)})
    with pytest.raises(DataError, match="simulate again"):
        export_run(tmp_path, "mine", "guess", tmp_path / "out")


@given(st.text(st.characters(codec=None), max_size=4))
def test_every_json_string_is_kept_as_a_token(text: str) -> None:
    parsed = json.loads(json.dumps(text))
    assert token_text(token_bytes(parsed)) == parsed


@given(st.binary(max_size=8))
def test_every_token_can_be_written_as_json(token: bytes) -> None:
    text = token_text(token)
    assert json.loads(json.dumps(text)) == text


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (b" caf\xc3\xa9", " café"),
        (b"\\x41", "\\x41"),
        (b"\xc3", "\\xc3"),
        (b"\xed\xa0\x80", "\ud800"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\\xed\\xa0\\xbd\\xed\\xb8\\x80"),  # two halves of one
    ],
)
def test_only_bytes_that_are_no_text_are_escaped(token: bytes, text: str) -> None:
    assert token_text(token) == text


def test_a_run_over_some_neurons_exports_their_records_alone(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    name, site = "tiny-token-lookup", "blocks.0.mlp.hook_post"
    done = export_run(small_workspace.root, name, "token-lookup", tmp_path / "some")
    assert done.records == done.explanations
    found = {path.stem for path in (tmp_path / "some").rglob("collated-activations/0/*.json")}
    assert found == {str(neuron) for neuron in range(64)}
    whole = export_run(small_workspace.root, name, "token-lookup", tmp_path / "all", True)
    sites = Run(small_workspace, name).sites()
    widths = [RecordSet(small_workspace.data, "tiny", other).width for other in sites]
    assert site in sites
    assert whole.records == sum(widths)
    assert whole.explanations == done.explanations
