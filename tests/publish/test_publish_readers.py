"""A published folder is read by the tools that people have: datasets, DuckDB, and load_run."""

import doctest
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import neuron_explainer
from neuron_explainer.errors import DataError
from neuron_explainer.publish.columns import CONFIGS
from neuron_explainer.publish.folder import PublishedFolder
from neuron_explainer.publish.parts import write_parts
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import SPLITS, NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.tokens import unescape
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
NEURONS = 64  # of each of two sites
ROWS = {
    "explanations": 2 * NEURONS,
    "scores": 3 * 2 * NEURONS,
    "features": 2 * NEURONS,
    "runs": 7,
}


@pytest.fixture(scope="module")
def datasets() -> Iterator[Any]:
    """The library, told not to look for a network."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        warnings.simplefilter("ignore")
        import datasets

        datasets.disable_progress_bars()
        yield datasets


@pytest.mark.parametrize("config", CONFIGS)
def test_datasets_loads_every_config(
    datasets: Any, published: Path, config: str, tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(published), config, split="train", cache_dir=str(tmp_path))
    table = getattr(neuron_explainer.load_run(published), config)
    assert len(loaded) == len(table) == ROWS.get(config, len(table))
    assert loaded.features.arrow_schema.types == _plain(table.schema).types
    assert loaded[0].keys() == set(table.column_names)
    if config != "features":  # whole token tables: slow as Python objects
        assert loaded[len(loaded) - 1] == table.slice(len(table) - 1).to_pylist()[0]


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def test_the_explanations_are_what_datasets_loads_by_default(
    datasets: Any, published: Path, tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(published), split="train", cache_dir=str(tmp_path))
    assert "text" in loaded.column_names
    assert datasets.get_dataset_config_names(str(published)) == list(CONFIGS)


@pytest.mark.parametrize("config", CONFIGS)
def test_duckdb_reads_every_config(published: Path, config: str) -> None:
    table = getattr(neuron_explainer.load_run(published), config)
    with duckdb.connect() as base:
        read = base.sql(f"SELECT * FROM '{published}/data/{config}/*.parquet'").to_arrow_table()
    assert read.column_names == table.column_names
    assert len(read) == len(table)
    assert read["neuron" if "neuron" in read.column_names else "name"].equals(
        table["neuron" if "neuron" in read.column_names else "name"]
    )


def test_the_query_on_the_card_runs(published: Path) -> None:
    card = (published / "README.md").read_text("utf-8")
    query = card.split("```sql\n")[1].split("```")[0]
    with duckdb.connect() as base:
        found = base.sql(query.replace("'data/", f"'{published}/data/")).fetchall()
    scores = [row[-1] for row in found]
    assert len(found) == 10
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_workspace_and_a_published_folder_give_the_same_tables(
    small_workspace: Workspace, published: Path, config: str
) -> None:
    here = neuron_explainer.load_run(small_workspace.explanations / RUN)
    there = neuron_explainer.load_run(published)
    assert (here.name, here.subject) == (there.name, there.subject) == (RUN, "tiny")
    assert getattr(here, config).equals(getattr(there, config))


def test_explanations_are_the_runs_own(small_workspace: Workspace, published: Path) -> None:
    run = Run(small_workspace, RUN)
    found = list(neuron_explainer.load_run(published))
    assert len(found) == 2 * NEURONS
    assert found == [run.explanation(explanation.neuron) for explanation in found]


def test_records_are_those_of_the_record_set(small_workspace: Workspace, published: Path) -> None:
    found: dict[NeuronId, list[Any]] = {}
    for neuron, record in neuron_explainer.load_run(published).iterate_records():
        found.setdefault(neuron, []).append(record)
    assert len(found) == 2 * NEURONS
    for neuron in (min(found), max(found)):
        stored = RecordSet(small_workspace.data, "tiny", neuron.site).neuron(neuron.index).records
        assert len(found[neuron]) == len(stored)
        for made, kept in zip(found[neuron], stored, strict=True):
            assert made.tokens == kept.tokens
            np.testing.assert_array_equal(made.activations, kept.activations)
            np.testing.assert_array_equal(made.scored, kept.scored)
            assert (made.kind, made.split, made.band) == (kept.kind, kept.split, kept.band)


def test_readable_tokens_are_the_bytes(published: Path) -> None:
    records = neuron_explainer.load_run(published).records.slice(0, 500)
    for text, exact in zip(records["tokens"], records["token_bytes"], strict=True):
        assert [unescape(token) for token in text.as_py()] == exact.as_py()
    assert set(records["split"].to_pylist()) <= {*SPLITS, None}


def test_each_neuron_has_its_token_rows(small_workspace: Workspace, published: Path) -> None:
    features = neuron_explainer.load_run(published).features
    last = features.slice(len(features) - 1).to_pylist()[0]
    neuron = RecordSet(small_workspace.data, "tiny", last["site"]).neuron(last["neuron"])
    assert neuron.token_rows is not None
    assert neuron.statistics is not None
    assert last["rows_token"] == [row.token for row in neuron.token_rows]
    assert last["rows_previous"] == [row.previous for row in neuron.token_rows]
    assert last["rows_count"] == [row.count for row in neuron.token_rows]
    assert (last["density"], last["tokens"]) == (
        neuron.statistics.density,
        neuron.statistics.tokens,
    )


def test_the_example_of_load_run_works(
    small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_workspace.root)
    done = doctest.testmod(neuron_explainer)
    assert done.attempted > 5
    assert not done.failed


def test_what_is_no_run_is_refused(small_workspace: Workspace, tmp_path: Path) -> None:
    for path in (tmp_path, small_workspace.root, small_workspace.explanations / "nothing"):
        with pytest.raises(DataError, match="is no run: give the folder explanations/RUN"):
            neuron_explainer.load_run(path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "was changed or cut short"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_file_is_named_when_it_is_read(
    published: Path, tmp_path: Path, harm: Any, said: str
) -> None:
    copy = tmp_path / "copy"
    for name in PublishedFolder(published).sizes():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(published / name, copy / name)
    file = copy / "data" / "scores" / "00000.parquet"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    harm(file)
    run = neuron_explainer.load_run(copy)
    assert len(run.explanations) == 2 * NEURONS
    with pytest.raises(DataError, match=f"00000.parquet {said}"):
        _ = run.scores


def test_a_table_that_was_left_out_is_named(published: Path) -> None:
    with pytest.raises(DataError, match="'recrods' is no table of a run"):
        neuron_explainer.load_run(published).pieces("recrods")


def test_large_tables_are_cut_into_files_and_lose_no_row(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("neuron", pa.int32()), pa.field("values", pa.list_(pa.float32()))])
    random = np.random.default_rng(0)
    tables = [
        pa.table(
            {
                "neuron": pa.array(np.arange(start, start + 2000), pa.int32()),
                "values": list(random.random((2000, 64), np.float32)),
            },
            schema=schema,
        )
        for start in range(0, 10_000, 2000)
    ]
    written = write_parts(tmp_path, schema, tables, file_bytes=1000, group_bytes=1 << 20)
    assert written.rows == 10_000
    assert written.files == ("00000.parquet", "00001.parquet", "00002.parquet")
    read = pa.concat_tables(pa.parquet.read_table(tmp_path / name) for name in written.files)
    assert read.equals(pa.concat_tables(tables))
    assert pc.count_distinct(read["neuron"]).as_py() == 10_000
