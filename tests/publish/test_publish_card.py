"""The card is read by machines and by people, whatever a run's texts and names hold."""

import asyncio
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from neuron_explainer import schemas, workspace
from neuron_explainer.config import ScoreSettings, SimulateSettings
from neuron_explainer.interchange.openai_export import export_run
from neuron_explainer.interchange.openai_import import import_explanations
from neuron_explainer.publish import markdown
from neuron_explainer.publish.columns import CONFIGS
from neuron_explainer.publish.settings import PublishSettings
from neuron_explainer.publish.stage import publish
from neuron_explainer.records import Explanation
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.score.stage import score
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.tokens import readable
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
HOSTILE = (
    "---\nlicense: mit\n---\n# Owned\n<script>alert(1)</script> | cell | ```\n[x](javascript:a(1)) "
    "![i](http://evil.example/p.png) *b* _e_ `c` ~~s~~ http://evil.example www.evil.example "
    "\x1b[2J\x00\u202e\u2028\t&lt;b&gt; @you #1 $x$ {{ jinja }} {% raw %} \\"
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def metadata(card: str) -> dict[str, Any]:
    """The head, as the hub's library takes it."""
    data: Any = DatasetCard(card).data
    found: dict[str, Any] = data.to_dict()
    return found


def pages(card: str) -> list[Token]:
    """The card below its head, as a reader of Markdown takes it."""
    return MARKDOWN.parse(DatasetCard(card, ignore_metadata_errors=False).text)


def inner(tokens: list[Token]) -> Iterator[Token]:
    """All tokens, those within lines too."""
    for token in tokens:
        yield token
        yield from token.children or ()


def test_the_head_is_what_the_hub_wants(published: Path) -> None:
    head = metadata((published / "README.md").read_text("utf-8"))
    assert head["license"] == "cc0-1.0"
    assert head["pretty_name"] == RUN
    assert head["language"] == ["und"]
    assert "sparse-autoencoder" in head["tags"]
    assert head["size_categories"] == ["10K<n<100K"]
    assert [config["config_name"] for config in head["configs"]] == list(CONFIGS)
    assert [config.get("default", False) for config in head["configs"]] == [True, *[False] * 5]
    for config in head["configs"]:
        (entry,) = config["data_files"]
        assert list(published.glob(entry["path"]))


def test_the_card_says_what_one_needs_to_judge_it(published: Path) -> None:
    card = (published / "README.md").read_text("utf-8")
    weights = orjson.loads((published / "published.json").read_bytes())["inputs"]
    assert weights
    for said in (
        "whole token table",
        "*shuffled*",
        "Licence of the corpus | not stated",
        "random only [95 %]",
        "with undefined as 0 the mean is",
        "No language model was asked.",
        "load_dataset(",
        "neuron_explainer.load_run(",
        "@misc{tiny-token-lookup,",
    ):
        assert said in card, said


@pytest.fixture(scope="module")
def hostile(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a run all of whose texts and names are hostile."""
    root = tmp_path_factory.mktemp("hostile") / "workspace"
    shutil.copytree(small_workspace.root, root)
    old, name = Run(Workspace(root), RUN), "x`|<b> [y](z)\n---\n: '*"
    run = Run(old.workspace, name)
    run.folder.open(old.folder.manifest()["config"] | {"note": HOSTILE, "llm": "local//home/me/m"})
    for site in old.sites():
        for _, file in old.folder.shards(f"{site}/explanations"):
            texts = [
                Explanation(made.neuron, HOSTILE, HOSTILE, made.table)
                for made in old.explanations(site, file).values()
            ]
            failures = file.replace("explanations-", "failures-")
            run.folder.write({file: explanation_table(texts[:-1]), failures: _failed()})
    spending = {"requests": 3, "prompt_tokens": 12345, "completion_tokens": 6, "cost": 0.5}
    run.folder.update({"complete": True, "spending": spending})
    asyncio.run(simulate(run, "token-lookup", SimulateSettings(), label="a|b`<i>"))
    score(run, "a|b`<i>", ScoreSettings())
    settings = PublishSettings(name=HOSTILE, license=HOSTILE, corpus_license=HOSTILE)
    return publish(run, None, settings).folder.path / "README.md"


def _failed() -> pa.Table:
    row = {"neuron": 63, "stage": "explain", "cause": HOSTILE[:90], "message": "http://10.0.0.1"}
    return pa.Table.from_pylist([row], schema=schemas.FAILURES)


def test_a_hostile_run_cannot_write_into_the_head(hostile: Path) -> None:
    head = metadata(hostile.read_text("utf-8"))
    assert set(head) == {
        *("license", "license_name", "pretty_name", "language", "tags", "size_categories"),
        "configs",
    }
    assert head["license"] == "other"
    assert head["pretty_name"].startswith("---⏎license: mit⏎---⏎# Owned⏎<script>")
    assert [config["config_name"] for config in head["configs"]] == list(CONFIGS)


def test_a_hostile_run_cannot_write_markup_into_the_page(hostile: Path, published: Path) -> None:
    plain, harmed = (pages(path.read_text("utf-8")) for path in (published / "README.md", hostile))
    kinds = {token.type for token in inner(harmed)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "s_open", "hr"}
    headings, expected = (
        [
            page[place + 1].content
            for place, token in enumerate(page)
            if token.type == "heading_open"
        ]
        for page in (harmed, plain)
    )
    assert headings[1:3] == expected[1:3]
    assert set(headings[1:]) == {*expected[1:], "Failures"}
    text = hostile.read_text("utf-8")
    assert "/home/me" not in text
    assert "10.0.0.1" not in text
    assert not {"\x1b", "\x00", "\u202e", "\u2028", "\t"} & set(text)


def test_every_row_of_a_table_has_the_cells_of_its_head(hostile: Path) -> None:
    lines = hostile.read_text("utf-8").splitlines()
    tables = [list(rows) for is_row, rows in groupby(lines, lambda line: line[:1] == "|") if is_row]
    assert len(tables) > 6
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1
        assert set(rows[1]) <= set("| -:")


def test_what_was_asked_of_a_language_model_is_on_the_card(hostile: Path) -> None:
    text = hostile.read_text("utf-8")
    assert "12,345" in text
    assert "| 0.50 |" in text
    assert "no hash recorded" in text


@given(st.text())
def test_any_text_is_one_yaml_string(text: str) -> None:
    head = f"---\npretty_name: {markdown.scalar(text)}\nlicense: mit\n---\n"
    data = metadata(head)
    assert data["license"] == "mit"
    assert isinstance(data["pretty_name"], str)


@given(st.text())
def test_any_text_is_shown_as_it_is(text: str) -> None:
    (cell,) = (
        token
        for token in MARKDOWN.parse(markdown.table(["a"], [[markdown.line(f"x{text}x")]]))
        if token.type == "inline" and token.content != "a"
    )
    assert {child.type for child in cell.children or ()} <= {"text", "text_special"}
    shown = "".join(child.content for child in cell.children or ())
    assert shown == readable(f"x{text}x".encode("utf-8", "surrogatepass"))


def test_the_card_of_an_import_does_not_say_how_the_run_was_made(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    export_run(small_workspace.root, RUN, "token-lookup", tmp_path / "files")
    source = tmp_path / "files" / "blocks.0.mlp.hook_post" / "explanations"
    if not source.is_dir():
        source = tmp_path / "files" / "explanations"
    here = workspace.init(tmp_path / "here")
    import_explanations(source, here.root, "imported")
    score(Run(here, "imported"), "imported", ScoreSettings())
    done = publish(Run(here, "imported"), None, PublishSettings())
    text = (done.folder.path / "README.md").read_text("utf-8")
    assert done.rows["explanations"] == len(list(source.rglob("*.jsonl")))
    assert "imported from files in openai's format" in text
    assert "Not known: the run was imported." in text
    assert "No language model was asked" not in text
    assert "Not published: `features`." in text
    assert "correlation is the only score" in text


def test_verdicts_about_sequences_have_a_table_of_their_own(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    shutil.copytree(small_workspace.root, tmp_path / "here")
    run = Run(Workspace(tmp_path / "here"), RUN)
    asyncio.run(simulate(run, "token-lookup", SimulateSettings(), label="verdicts"))
    run.simulations("verdicts").update({"predicts": "sequences"})
    score(run, "verdicts", ScoreSettings())
    done = publish(run, None, PublishSettings())
    text = (done.folder.path / "README.md").read_text("utf-8")
    assert "| simulator | neurons | balanced accuracy [95 %] | AUROC [95 %] | undefined |" in text
    assert "| verdicts | 64 | 0." in text
    assert "correlation (token-lookup)" in text
    scores = pq.read_table(done.folder.path / "data" / "scores")
    of_verdicts = scores.filter(pc.equal(scores["simulator"], "verdicts"))
    assert of_verdicts["auroc_top_and_random"].null_count < len(of_verdicts)
    assert of_verdicts["correlation_top_and_random"].null_count == len(of_verdicts)
    assert scores["auroc_top_and_random"].null_count >= len(scores) - len(of_verdicts)
