"""Typed text: the same activations as collect, one request at a time, and none left behind."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted_head
import pytest
import torch
import transformers
from example_corpus import first_documents
from fastapi import FastAPI
from live_asking import Asked, Held, app_of, ask, soon
from safetensors.torch import load_file, save_file

from neuron_explainer import workspace
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, ModelSettings, SaeSettings, SubjectSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.view.catalog import read_catalog
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.live import LONGEST_TEXT, Live, LiveSettings
from neuron_explainer.view.live_subject import windows
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
LATENTS = "blocks.2.hook_resid_post/topk"
KEY = key_of("tiny", SITE)
ACTIVATIONS = "/api/live/activations"


@pytest.fixture(scope="module")
def app(small_workspace: Workspace, tiny_subject: HuggingFaceSubject) -> Iterator[FastAPI]:
    """The small workspace with the example's model, which is loaded already."""
    made, live = app_of(small_workspace, LiveSettings(load=lambda _: tiny_subject))
    yield made
    live.close()


def _body(text: str, neuron: int = 3, site: str = KEY, **more: object) -> dict[str, object]:
    return {"site": site, "neuron": neuron, "text": text, **more}


def _text_of(corpus: tuple[bytes, ...]) -> str:
    return b"".join(corpus[1:]).decode("utf-8", "replace")


@pytest.mark.parametrize("site", [SITE, LATENTS])
def test_a_record_that_is_typed_again_has_the_activations_that_were_collected(
    app: FastAPI, small_workspace: Workspace, site: str
) -> None:
    records = RecordSet(small_workspace.data, "tiny", site)
    compared = 0
    for record in records.neuron(5).of_kind("top")[:12]:
        status, lines = ask(
            app, ACTIVATIONS, _body(_text_of(record.tokens), 5, key_of("tiny", site))
        )
        found = [line for line in lines if "tokens" in line]
        assert status == 200
        assert lines[-1] == {"done": True}
        if len(found) == 1 and len(found[0]["tokens"]) == len(record.tokens):
            scale = float(np.max(np.abs(record.activations)))
            np.testing.assert_allclose(
                found[0]["activations"], record.activations, atol=2e-3 * scale
            )
            assert found[0]["unscored"] == np.flatnonzero(~record.scored).tolist()
            compared += 1
    assert compared >= 6  # others begin within a word, so they are cut into other tokens


def test_a_long_text_comes_window_by_window_as_collect_cuts_it(app: FastAPI) -> None:
    lines = ask(app, ACTIVATIONS, _body("The cat sat on the mat. " * 60))[1]
    sizes = [len(line["tokens"]) for line in lines if "tokens" in line]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {65}  # BOS and 64
    assert 1 < sizes[-1] <= 65
    assert ask(app, ACTIVATIONS, _body(""))[1] == [{"done": True}]


def test_what_is_typed_comes_back_as_it_is(app: FastAPI) -> None:
    typed = "a\\b \u202e\u0000 é ☃ <script>"
    line = ask(app, ACTIVATIONS, _body(typed))[1][-2]
    text = "".join(line["tokens"][1:])
    assert "\\\\" in text
    assert "<script>" in text


def test_work_stops_when_the_page_goes_and_the_next_one_is_served(
    small_workspace: Workspace, tiny_subject: HuggingFaceSubject
) -> None:
    held = Held(tiny_subject)
    made, live = app_of(small_workspace, LiveSettings(load=lambda _: held))

    async def scenario() -> None:
        first = Asked(made, ACTIVATIONS, _body("many words " * 500))
        assert await first.line() == {"loading": "tiny"}
        await soon(held.begun.acquire)  # it computes its first window
        second = Asked(made, ACTIVATIONS, _body("one"))
        assert await second.line() == {"waiting": 1}
        third = Asked(made, ACTIVATIONS, _body("two"))
        assert await third.line() == {"waiting": 2}
        await first.leave()
        held.free()
        assert [set(line) for line in await second.all()][-1] == {"done"}
        assert {"waiting": 1} in await third.all()

    asyncio.run(scenario())
    live.close()
    assert held.passes == 3  # one of each: nothing more was computed for the one that had gone


def test_one_that_waits_and_goes_gives_up_its_place(
    small_workspace: Workspace, tiny_subject: HuggingFaceSubject
) -> None:
    held = Held(tiny_subject)
    made, live = app_of(small_workspace, LiveSettings(load=lambda _: held))

    async def scenario() -> None:
        first = Asked(made, ACTIVATIONS, _body("one"))
        await soon(held.begun.acquire)
        waiting = []
        for place in range(1, 9):
            waiting.append(Asked(made, ACTIVATIONS, _body("more")))
            assert await waiting[-1].line() == {"waiting": place}
        [refused] = await Asked(made, ACTIVATIONS, _body("too many")).all()
        assert refused == {"error": "8 requests are waiting already: try again later", "run": None}
        await waiting[0].leave()
        assert await waiting[1].line() == {"waiting": 1}
        for each in waiting[1:]:
            await each.leave()
        held.free()
        assert (await first.all())[-1] == {"done": True}

    asyncio.run(scenario())
    live.close()
    assert held.passes == 1


def test_what_takes_too_long_is_stopped_and_says_so(
    small_workspace: Workspace, tiny_subject: HuggingFaceSubject
) -> None:
    settings = LiveSettings(load=lambda _: tiny_subject, reading_seconds=0.0)
    made, live = app_of(small_workspace, settings)
    lines = ask(made, ACTIVATIONS, _body("many words " * 500))[1]
    live.close()
    said = "this took more than 0 seconds and was stopped: type less text"
    assert lines[-1] == {"error": said, "run": None}
    assert len(lines) < 10


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_body("x" * (LONGEST_TEXT + 1)), 422, "text has more than 20,000 characters"),
        (_body("a", site="../../etc"), 404, "there is no such site in this workspace"),
        (_body("a", neuron=-1), 422, "neuron is missing or not as it should be"),
        (_body("a", neuron=True), 422, "neuron is missing or not as it should be"),
        (_body("a", path="/etc/passwd"), 422, "the body is missing or not as it should be"),
        ({"site": KEY}, 422, "neuron is missing or not as it should be"),
        (b"{", 400, "the body is no JSON"),
        (b"[1]", 422, "the body is missing or not as it should be"),
        (b'"' + b"x" * (1 << 18) + b'"', 413, ""),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    app: FastAPI, body: object, status: int, said: str
) -> None:
    given, lines = ask(app, ACTIVATIONS, body)
    if status != 413:  # the guard has it, as if the sender had gone
        [line] = lines
        assert given == status
        assert line["error"].startswith(said)
        assert "\n" not in line["error"]
    assert not any("tokens" in line for line in lines)


def test_a_neuron_that_is_not_there_is_a_line(app: FastAPI) -> None:
    [line] = ask(app, ACTIVATIONS, _body("a", neuron=512))[1]
    assert line == {"error": f"tiny/{SITE} has neurons 0 to 511, no 512", "run": None}


def test_a_model_that_breaks_is_a_line_without_a_trace(
    small_workspace: Workspace, tiny_subject: HuggingFaceSubject
) -> None:
    def broken(_: SubjectSettings) -> HuggingFaceSubject:
        raise RuntimeError("CUDA out of memory\nTried to allocate 7 GiB")

    made, live = app_of(small_workspace, LiveSettings(load=broken))
    lines = ask(made, ACTIVATIONS, _body("a"))[1]
    live.close()
    assert lines[-1] == {"error": "this failed: CUDA out of memory", "run": None}


def test_another_model_is_refused_by_name(
    small_workspace: Workspace, tiny: Path, tmp_path: Path
) -> None:
    model = tmp_path / "tiny"
    shutil.copytree(tiny / "model", model)
    weights = load_file(model / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, model / "model.safetensors", {"format": "pt"})
    subject = SubjectSettings(str(model))
    made, live = app_of(small_workspace, LiveSettings(subject))
    [line] = ask(made, ACTIVATIONS, _body("a"))[1]
    live.close()
    assert (
        line["error"]
        == f"{model} is another model than tiny was collected from: its weights differ"
    )
    assert line["run"] == "neuron-explainer view --subject MODEL --name tiny"


def test_the_model_may_be_named_and_its_autoencoder_must_be(
    small_workspace: Workspace, tiny: Path
) -> None:
    sae = SaeSettings(str(tiny / "sae" / "blocks.2.hook_resid_post.pt"), None, "topk")
    subject = SubjectSettings(str(tiny / "model"), "tiny")
    entries = read_catalog(small_workspace).sites
    without = Live(small_workspace, LiveSettings(subject))
    assert without.unable(entries[KEY].records) is None
    missing = without.unable(entries[key_of("tiny", LATENTS)].records)
    assert missing is not None
    assert missing["error"] == f"the autoencoder of {LATENTS} is not at hand"
    assert "--sae PATH --site blocks.2.hook_resid_post" in missing["run"]
    site = replace(sae, site="blocks.2.hook_resid_post")
    made, live = app_of(small_workspace, LiveSettings(replace(subject, sae=(site,))))
    lines = ask(made, ACTIVATIONS, _body("a b", site=key_of("tiny", LATENTS)))[1]
    live.close()
    assert lines[0] == {"loading": "tiny"}
    assert lines[-1] == {"done": True}


def test_settings_of_no_use_are_refused_before_anything_is_served(
    small_workspace: Workspace, tiny: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no records of 'other' .*--name takes one of tiny"):
        Live(small_workspace, LiveSettings(SubjectSettings(str(tiny / "model"), "other")))
    with pytest.raises(ConfigError, match="without batch files"):
        Live(small_workspace, LiveSettings(model=ModelSettings("openai/x", write_batch="there")))


def test_records_that_were_imported_have_no_model(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    copy = Workspace(shutil.copytree(small_workspace.root, tmp_path / "copy"))
    RecordSet(copy.data, "tiny", SITE).folder.update({"config": {"source": "neuronpedia"}})
    live = Live(copy, LiveSettings())
    said = live.unable(RecordSet(copy.data, "tiny", SITE))
    assert said == {
        "error": "tiny was imported: no model is known that these records are of",
        "run": None,
    }


# ── other units ───────────────────────────────────────────────────────────────────────────────


def _tokenizer(tiny: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny / "model")


def _collected(
    folder: Path, tiny: Path, subject: HuggingFaceSubject, site: str
) -> tuple[FastAPI, Live, RecordSet]:
    """A workspace with one site of `subject`, which is known as `planted`, and its server."""
    here = workspace.init(folder / "workspace")
    corpus = folder / "some.jsonl"
    corpus.write_bytes(first_documents(tiny, 40))
    settings = CollectSettings(str(corpus), sites=(site,), excerpt_tokens=12, minimum_tokens=4)
    collect(here.data, SubjectSettings("planted"), settings, subject=subject)
    made, live = app_of(here, LiveSettings(SubjectSettings("planted"), load=lambda _: subject))
    return made, live, RecordSet(here.data, "planted", site)


def test_a_head_shows_whom_it_writes_for_and_all_that_a_query_takes(
    tiny: Path, tmp_path: Path
) -> None:
    subject = HuggingFaceSubject(planted_head.build(), _tokenizer(tiny))
    site = "blocks.0.attn.hook_pattern"
    made, live, records = _collected(tmp_path, tiny, subject, site)
    text = "The cat sat on the mat."
    body = _body(text, 0, key_of("planted", site))
    line = ask(made, ACTIVATIONS, body)[1][-2]
    length = len(line["tokens"])
    assert line["keys"][2:] == list(range(1, length - 1))  # it was planted to look one back
    [window] = windows(records, subject, text)
    found: list[torch.Tensor] = []
    subject.observe_pairs(torch.from_numpy(window.ids.astype(np.int64))[None], {site: found.append})
    row = ask(made, ACTIVATIONS, {**body, "query": [0, 4]})[1][-2]
    np.testing.assert_allclose(row["activations"], found[0][0, 0, 4].numpy(), rtol=1e-3, atol=1e-6)
    assert row["query"] == 4
    assert line["activations"][4] == row["activations"][line["keys"][4]]
    [refused] = [
        one for one in ask(made, ACTIVATIONS, {**body, "query": [0, 99]})[1] if "error" in one
    ]
    live.close()
    assert refused["error"] == f"this window has {length} tokens: there is no 99"


def test_an_expert_is_silent_where_it_was_not_chosen(tiny: Path, tmp_path: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=2000,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(config)
    subject = HuggingFaceSubject(model, _tokenizer(tiny))
    site = "blocks.0.mlp.experts.1.hook_post"
    made, live, records = _collected(tmp_path, tiny, subject, site)
    record = records.neuron(2).of_kind("top")[0]
    body = _body(_text_of(record.tokens), 2, key_of("planted", site))
    line = ask(made, ACTIVATIONS, body)[1][-2]
    live.close()
    assert len(line["tokens"]) == len(record.tokens)
    scale = float(np.abs(record.activations).max())
    np.testing.assert_allclose(line["activations"], record.activations, atol=2e-3 * scale)
    assert 0.0 in line["activations"]
