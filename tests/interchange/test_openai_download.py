"""Fetching public files from a stand-in server with faults: the public one was not asked."""

from pathlib import Path
from typing import Any

import pytest
from commands import files, in_process
from openai_objects import neuron_record, result
from stand_in_server import CUT, DROP, Answer, StandIn, serving

from neuron_explainer import workspace
from neuron_explainer.errors import ConfigError, ServiceError
from neuron_explainer.interchange import openai, openai_download, web
from neuron_explainer.interchange.openai_download import Downloaded, root_of, sites_of
from neuron_explainer.interchange.openai_import import import_records
from neuron_explainer.interchange.source import check_sites
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

LATENTS = "gpt2_small/autoencoder_latent/resid_delta_mlp_v4/collated-activations"


def published(method: str, path: str, body: Any) -> Answer:
    """Records and explanations of layers 3 and 4, neurons below 50, but for neuron 13."""
    layer, _, name = path.rpartition("/")[0][-1], None, path.rpartition("/")[2]
    neuron, _, suffix = name.partition(".")
    if layer not in "34" or int(neuron) >= 50 or int(neuron) == 13:
        return (404, b"no such blob", {})
    made = neuron_record if suffix == "json" else result
    return (200, openai.dumps(made(int(layer), int(neuron))), {})


def fetched(
    server: StandIn, folder: Path, neurons: range, what: str = "records", path: str = "data"
) -> Downloaded:
    """What comes of fetching from layer 3; no wait takes time."""
    client = web.Web(f"{server.url}/{path}", sleep=lambda _: None)
    try:
        return openai_download.download(client, folder, what, [3], neurons, "x", lambda _: None)
    finally:
        client.close()


def test_nothing_is_fetched_twice(tmp_path: Path) -> None:
    with serving(StandIn(published)) as server:
        first = fetched(server, tmp_path, range(20))
        assert first.fetched == 19
        assert [failure.cause for failure in first.missing] == ["not-published"]
        assert str(first.missing[0].neuron) == "x/blocks.3.mlp.hook_post/13"
        again = fetched(server, tmp_path, range(25))
        assert again.fetched == 5
        assert max(server.asked[f"GET /data/3/{neuron}.json"] for neuron in range(13)) == 1
        other = fetched(server, tmp_path, range(2), path="other")
        assert other.fetched == 2  # another data set
        assert other.folder != first.folder
    done = import_records(first.folder, tmp_path / "data", "x")
    assert done.imported == 24


def test_faults_are_tried_again_and_leave_no_half_files(tmp_path: Path) -> None:
    faults = [DROP, CUT, (503, b"", {}), (429, b"", {"Retry-After": "0"}), CUT]
    with serving(StandIn(published, list(faults))) as server:
        assert fetched(server, tmp_path, range(6)).fetched == 6
        assert sum(server.asked.values()) == 6 + len(faults)
    whole = {openai.dumps(neuron_record(3, neuron)) for neuron in range(6)}
    assert set(files(tmp_path).values()) == whole


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((403, b"not yours", {}), "403: not yours; check --url"),
        ((302, b"", {"Location": "http://elsewhere"}), "302"),
        ((200, b"<html>a page</html>", {}), "it is no JSON: .*check --url"),
        ((200, b"[" * 100_000, {}), "check --url"),
        ((503, b"down", {}), r"503: down \(after 6 tries\)"),
    ],
)
def test_what_is_no_file_is_an_error_and_not_kept(
    tmp_path: Path, answer: Answer, says: str
) -> None:
    with (
        serving(StandIn(lambda *_: answer)) as server,
        pytest.raises(ServiceError, match=says),
    ):
        fetched(server, tmp_path, range(100))
    assert not files(tmp_path)


def test_an_error_ends_the_rest_soon_and_keeps_what_was_fetched(tmp_path: Path) -> None:
    def then_down(method: str, path: str, body: Any) -> Answer:
        return published(method, path, body) if int(path[8:-5]) < 12 else (403, b"", {})

    with serving(StandIn(then_down)) as server:
        with pytest.raises(ServiceError):
            fetched(server, tmp_path, range(10_000))
        assert sum(server.asked.values()) <= 64
    assert len(files(tmp_path)) == 12


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LARGEST_REPLY", 100)
    with (
        serving(StandIn(published)) as server,
        pytest.raises(ServiceError, match="it is not read"),
    ):
        fetched(server, tmp_path, range(1))


def test_short_names_are_the_public_roots() -> None:
    base = "https://openaipublic.blob.core.windows.net/neuron-explainer"
    assert root_of("gpt2-xl", "records") == f"{base}/data/collated-activations"
    assert root_of("gpt2-xl", "explanations") == f"{base}/data/explanations"
    assert root_of("gpt2-small", "explanations") == f"{base}/gpt2_small_data/explanations"
    assert root_of("gpt2-small-resid-delta-mlp-v4", "records") == f"{base}/{LATENTS}"
    assert root_of("https://example.org/x/", "records") == "https://example.org/x"
    for name, what in (("gpt3", "records"), ("http://example.org", "records"), ("gpt2-xl", "x")):
        with pytest.raises(ConfigError):
            root_of(name, what)
    with pytest.raises(ConfigError, match="no public explanations"):
        root_of("gpt2-small-resid-delta-mlp-v4", "explanations")


def test_public_autoencoders_have_sites_of_their_own() -> None:
    assert sites_of(f"https://x.org/{LATENTS}") == "blocks.{layer}.hook_mlp_out/v4"
    assert sites_of("autoencoder_latent/mlp_post_act_v1") == "blocks.{layer}.mlp.hook_post/v1"
    assert sites_of("data/collated-activations") == "blocks.{layer}.mlp.hook_post"
    for bad in ("blocks.6.mlp.hook_post", "blocks.{layer}.x/../../y", "{layer}", "/etc/{layer}"):
        with pytest.raises(ConfigError, match="does not name sites"):
            check_sites(bad)


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return workspace.init(tmp_path / "workspace")


def test_the_command_fetches_and_imports(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = in_process(monkeypatch, capsys)
    with serving(StandIn(published)) as server:
        url = f"{server.url}/{LATENTS}"
        given = ("import", "openai", "--url", url, "--workspace", here.root)
        asked = ("--layer", "3", "--neurons", "10-14", "--name", "latents")
        done = run(*given, *asked)
        assert done.code == 1  # neuron 13 is not there
        assert "latents: 4 neurons imported (blocks.3.hook_mlp_out/v4)" in done.out
        assert "13.json is not there" in done.err
        site = "blocks.3.hook_mlp_out/v4"
        assert RecordSet(here.data, "latents", site).neuron(12).of_kind("top")
        before = sum(server.asked.values())
        assert run(*given, *asked).out == done.out
        assert sum(server.asked.values()) == before + 1  # for the one that is not there
        explained = run(
            *(*given, "--what", "explanations", "--layer", "4", "--neurons", "1"),
            *("--name", "e", "--site", "blocks.{layer}.mlp.hook_post"),
        )
        assert explained.code == 0, explained.err
        assert (here.scoring / "e").is_dir()
    for refused, says in (
        (given, "give --name"),
        ((*given, "--name", "x"), "say what to fetch"),
        (("import", "openai", "--name", "x", "--workspace", here.root), "either a folder or --url"),
    ):
        ended = run(*refused)
        assert ended.code == 2
        assert says in ended.err


def test_token_and_weight_files_are_skipped_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "in/3").mkdir(parents=True)
    tokens = b'{"tokens": ["a"], "average_activations": [1.0]}'
    weights = b'{"input_positive": {"tokens": [], "strengths": []}}'
    for neuron, content in enumerate((tokens, weights, openai.dumps(neuron_record(3, 2)))):
        (tmp_path / f"in/3/{neuron}.json").write_bytes(content)
    done = import_records(tmp_path / "in", tmp_path / "data", "x")
    assert done.imported == 1
    assert [(failure.cause, failure.message) for failure in done.failures] == [
        ("skipped", "3/0.json holds average activations of tokens: it is not imported"),
        ("skipped", "3/1.json holds tokens connected by weights: it is not imported"),
    ]
