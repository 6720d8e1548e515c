"""Uploading to a stand-in for Neuronpedia's web API: the public one was not called."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import files, in_process
from stand_in_server import CUT, DROP, Answer, StandIn, serving

from neuron_explainer.errors import ConfigError, RunMismatch, ServiceError
from neuron_explainer.interchange import neuronpedia_upload, web
from neuron_explainer.interchange.neuronpedia_export import ExportSettings, SiteOfRun
from neuron_explainer.interchange.neuronpedia_upload import Upload, plan, upload
from neuron_explainer.interchange.web import Web, check_url
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

RUN, SITE, SOURCE = "tiny-token-lookup", "blocks.0.mlp.hook_post", "0-mlp-neurons-acme"
KEY = "sk-very-secret"
SET, BATCH = "POST /api/source-set/new", "POST /api/feature/upload-batch"


class Neuronpedia:
    """Checks requests against the documented limits and keeps what it was sent."""

    def __init__(self) -> None:
        self.sets: list[Any] = []
        self.batches: list[list[Any]] = []
        self.features: dict[str, Any] = {}
        self.known_models = {"gpt-4o-mini"}
        self.refuse: Answer | None = None

    def answer(self, method: str, path: str, body: Any) -> Answer:
        if self.refuse:
            return self.refuse
        if method == "GET":
            index = path.removeprefix(f"/api/feature/tiny/{SOURCE}/")
            return (200, json.dumps(self.features.get(index)).encode(), {})
        if path == "/api/source-set/new":
            assert set(body) <= {"name", "modelId", "description"}
            if self.sets:
                return (409, b'{"message": "exists"}', {})
            self.sets.append(body)
            return (200, b"{}", {})
        assert path == "/api/feature/upload-batch"
        assert (body["modelId"], body["source"]) == ("tiny", SOURCE)
        return self._batch(body["features"])

    def _batch(self, features: list[Any]) -> Answer:
        assert 1 <= len(features) <= 128
        for feature in features:
            assert 0 <= feature["density"] <= 1
            assert max(len(feature["topLogits"]), len(feature["bottomLogits"])) <= 20
            assert feature["activations"]
            for record in feature["activations"]:
                assert len(record["tokens"]) == len(record["values"]) <= 1024
                assert set(record) <= {
                    *("tokens", "values", "quantileMin", "quantileMax", "quantileFraction"),
                }
            for said in feature["explanations"]:
                assert 1 <= len(said["text"]) <= 512
                if said.get("modelName", "gpt-4o-mini") not in self.known_models:
                    return (400, b'{"message": "unknown explanation model"}', {})
        self.batches.append([feature["index"] for feature in features])
        self.features |= {feature["index"]: feature for feature in features}
        return (200, b"{}", {})


@pytest.fixture
def root(small_workspace: Workspace, tmp_path: Path) -> Path:
    """A workspace that may be written."""
    copy = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, copy)
    return copy


def chosen(root: Path, **options: Any) -> SiteOfRun:
    """The site that is uploaded."""
    return SiteOfRun.open(root, RUN, ExportSettings("tiny", SOURCE, SITE, **options))


def sent(root: Path, server: StandIn, waits: list[float] | None = None, **options: Any) -> Upload:
    """What comes of an upload; no wait takes time."""
    client = Web(server.url, ("X-Api-Key", KEY), (waits if waits is not None else []).append)
    try:
        return upload(chosen(root, **options), client, "mine")
    finally:
        client.close()


def test_all_features_of_a_run_are_sent_within_the_limits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuronpedia_upload, "MOST_FEATURES", 20)
    there = Neuronpedia()
    with serving(StandIn(there.answer)) as server:
        expected = plan(chosen(root), server.url)
        assert not server.asked
        done = sent(root, server)
    assert there.sets == [{"name": "mlp-neurons-acme", "modelId": "tiny", "description": "mine"}]
    assert [len(batch) for batch in there.batches] == [20, 20, 20, 4]
    assert server.keys == {KEY}
    counts = ("features", "activations", "explanations", "batches")
    assert [getattr(done, name) for name in counts] == [getattr(expected, name) for name in counts]
    assert done.features == 64
    neuron = RecordSet(root / "data", "tiny", SITE).neuron(7)
    record = there.features["7"]["activations"][0]
    assert record["values"] == neuron.records[0].activations.tolist()
    assert "quantileMin" not in record
    kinds = [record.kind for record in neuron.records]
    fractions = [item.get("quantileFraction") for item in there.features["7"]["activations"]]
    assert fractions[kinds.index("random")] == 1.0
    assert fractions[kinds.index("quantile")] == 0.5


def test_a_request_is_no_larger_than_servers_take(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuronpedia_upload, "LARGEST_BODY", 200_000)
    there = Neuronpedia()
    with serving(StandIn(there.answer)) as server:
        sent(root, server)
    assert len(there.features) == 64
    assert len(there.batches) > 10


def test_what_is_too_long_is_cut_and_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuronpedia_upload, "MOST_TOKENS", 10)
    monkeypatch.setattr(neuronpedia_upload, "LONGEST_TEXT", 50)
    there = Neuronpedia()
    with serving(StandIn(there.answer)) as server:
        done = sent(root, server)
    assert done.cut_records > 0
    assert done.cut_texts == 64
    records = RecordSet(root / "data", "tiny", SITE).neuron(3).records
    for record, own in zip(there.features["3"]["activations"], records, strict=True):
        assert len(record["tokens"]) <= 10
        assert own.maximum in record["values"]  # the part around the maximum


def test_faults_are_tried_again_and_waits_are_obeyed(root: Path) -> None:
    there = Neuronpedia()
    faults = [
        (429, b"slow down", {"Retry-After": "7"}),
        (503, b"", {}),
        DROP,
        CUT,
        (500, b"oops", {}),
    ]
    waits: list[float] = []
    with serving(StandIn(there.answer, list(faults))) as server:
        done = sent(root, server, waits)
    assert done.features == 64
    assert len(waits) == len(faults)
    assert 7 <= waits[0] <= 7.1
    assert all(wait <= 60 for wait in waits[1:])


def test_a_server_that_never_answers_is_given_up(root: Path) -> None:
    with serving(StandIn(lambda *_: (503, b"down", {}))) as server:
        with pytest.raises(ServiceError, match=r"503: down \(after 6 tries\)"):
            sent(root, server)
        assert sum(server.asked.values()) == 6
    with serving(StandIn(lambda *_: (429, b"", {"Retry-After": "86400"}))) as server:
        with pytest.raises(ServiceError, match="asks to wait 86,400 s"):
            sent(root, server)
        assert sum(server.asked.values()) == 1


@pytest.mark.parametrize(
    ("status", "says"), [(401, "set NEURONPEDIA_API_KEY"), (403, "may not write there")]
)
def test_a_refusal_stops_at_once_and_never_shows_the_key(
    root: Path, status: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    there = Neuronpedia()
    there.refuse = (status, f"bad key {KEY}".encode(), {})
    with serving(StandIn(there.answer)) as server, pytest.raises(ServiceError, match=says) as error:
        sent(root, server)
    assert sum(server.asked.values()) == 1
    assert "bad key [key]" in str(error.value)
    assert KEY not in caplog.text + repr(Web("https://example.org", ("X-Api-Key", KEY)))


def test_a_model_name_that_is_refused_is_left_out_once_and_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuronpedia_upload, "MOST_FEATURES", 32)
    there = Neuronpedia()
    with serving(StandIn(there.answer)) as server:
        done = sent(root, server, explanation_model="my-model")
        assert server.asked[BATCH] == 3  # the first batch twice
    assert len(there.features) == 64
    (notice,) = done.notices
    assert "my-model was refused (400: " in notice
    assert not any("modelName" in said for said in there.features["0"]["explanations"])


def test_a_known_model_and_method_are_named(root: Path) -> None:
    there = Neuronpedia()
    named: dict[str, Any] = {"explanation_model": "gpt-4o-mini", "explanation_type": "np_max-act"}
    with serving(StandIn(there.answer)) as server:
        assert not sent(root, server, **named).notices
    (said,) = there.features["0"]["explanations"]
    assert (said["modelName"], said["methodName"]) == ("gpt-4o-mini", "np_max-act")


def test_an_upload_goes_on_where_it_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuronpedia_upload, "MOST_FEATURES", 16)
    there = Neuronpedia()

    def until_third(method: str, path: str, body: Any) -> Answer:
        if len(there.batches) == 2 and method == "POST":
            there.answer(method, path, body)  # taken, but the answer is lost
            return (400, b"lost", {})
        return there.answer(method, path, body)

    with serving(StandIn(until_third)) as server:
        with pytest.raises(ServiceError, match=r"features 32 to 47: .* 400: lost"):
            sent(root, server)
        server.answer = there.answer
        assert plan(chosen(root), server.url).features == 32
        done = sent(root, server)
        assert [len(batch) for batch in there.batches] == [16] * 4
        assert (done.features, done.already) == (16, 48)
        again = sent(root, server)
        assert (again.features, again.batches, again.already) == (0, 0, 64)
        folder = chosen(root).run.folder
        folder.update({"config": {**folder.manifest()["config"], "other": 1}})
        with pytest.raises(RunMismatch, match="other results"):
            sent(root, server)


@pytest.mark.parametrize(
    "url", ["http://www.neuronpedia.org", "ftp://x", "file:///etc", "https://a:b@x.org", "x"]
)
def test_only_https_goes_out_of_this_machine(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url(url)


def test_a_reply_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LARGEST_REPLY", 1000)
    with serving(StandIn(lambda *_: (200, b"x" * 2000, {}))) as server:
        client = Web(server.url)
        with pytest.raises(ServiceError, match="it is not read"):
            client.get("/x")
        server.answer = lambda *_: (200, b"x", {"Content-Encoding": "gzip"})
        with pytest.raises(ServiceError, match="encoding that was not asked for"):
            client.get("/x")
        client.close()


def test_the_command_plans_without_a_key_and_sends_with_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = in_process(monkeypatch, capsys)
    monkeypatch.delenv("NEURONPEDIA_API_KEY", raising=False)
    there = Neuronpedia()
    with serving(StandIn(there.answer)) as server:
        given = ("upload", "neuronpedia", RUN, "--model-id", "tiny", "--source", SOURCE)
        where = ("--site", SITE, "--url", server.url, "--workspace", root)
        before = files(root)
        planned = run(*given, *where, "--dry-run", "--json").json()
        assert planned["features"] == 64
        assert not server.asked
        assert files(root) == before
        refused = run(*given, *where)
        assert refused.code == 2
        assert "NEURONPEDIA_API_KEY is not set" in refused.err
        monkeypatch.setenv("NEURONPEDIA_API_KEY", KEY)
        done = run(*given, *where)
    assert done.code == 0, done.err
    assert f"sent to {server.url}, {SOURCE}: 64 features in 2 batches" in done.out
    assert KEY not in done.out + done.err + "".join(map(str, files(root).values()))
