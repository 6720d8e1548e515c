"""A site of a run through Neuronpedia's web API, resumable. See docs/formats.md for its limits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from neuron_explainer.errors import DataError, RunMismatch, ServiceError
from neuron_explainer.interchange.neuronpedia import ACTIVATIONS, EXPLANATIONS, FEATURES, TOP_GROUP
from neuron_explainer.interchange.neuronpedia_export import SiteOfRun
from neuron_explainer.interchange.neuronpedia_rows import Row
from neuron_explainer.interchange.web import Reply, Web
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import locked, replace_file

HEADER = "X-Api-Key"
MOST_FEATURES, MOST_LOGITS, MOST_TOKENS, LONGEST_TEXT = 128, 20, 1024, 512
LARGEST_BODY = 4 << 20  # bytes: what servers of this kind take

Batch = list[dict[str, Any]]


@dataclass
class Upload:
    """What an upload sends, or sent, and what had to be changed for it."""

    source: str
    features: int = 0
    activations: int = 0
    explanations: int = 0
    batches: int = 0
    already: int = 0  # features that were there before
    cut_texts: int = 0
    cut_records: int = 0
    failures: list[Failure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    """Which neurons have been uploaded, in a file beside the run."""

    path: Path
    what: dict[str, Any]  # what was uploaded, and where to

    @classmethod
    def of(cls, site: SiteOfRun, url: str) -> "Memory":
        """Raises RunMismatch when other results were uploaded under this name."""
        target = site.maker.target
        name = f"neuronpedia-{target.model}-{target.source}.json"
        what = {
            "url": url,
            "run": site.run.folder.digest(),
            "records": site.record_set.folder.digest(),
        }
        memory = cls(site.run.folder.path / "uploads" / name, what)
        before = memory._read()
        if before and before.get("what") != what:
            raise RunMismatch(
                f"{memory.path} says that other results, or to another --url, were uploaded as "
                f"{target.source}: choose another --source, or delete that file"
            )
        return memory

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            content = orjson.loads(self.path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise DataError(f"{self.path} is damaged: delete it") from error
        return content if isinstance(content, dict) else {}

    def done(self) -> set[int]:
        """The neurons that are there."""
        return set(self._read().get("done", ()))

    def add(self, neurons: Sequence[int]) -> None:
        """Remember that these are there, too."""
        done = sorted(self.done().union(neurons))
        content = {"what": self.what, "done": done}
        replace_file(self.path, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def plan(site: SiteOfRun, url: str) -> Upload:
    """What `upload` would send. Nothing is sent."""
    made = Upload(site.maker.target.source)
    done = Memory.of(site, url).done()
    made.already = len(done)
    for batch in _batches(site, done, made):
        _count(made, batch)
    return made


def upload(site: SiteOfRun, web: Web, description: str) -> Upload:
    """Make the source set, and send what is not there yet. Raises ServiceError.

    What was sent is remembered after each batch. A batch whose answer was lost is asked for.
    """
    target = site.maker.target
    made = Upload(target.source)
    with locked(site.run.folder.path):
        memory = Memory.of(site, web.url)
        done = memory.done()
        made.already = len(done)
        resumed = bool(done)
        _make_set(site, web, description)
        if not resumed:
            memory.add(())
        for batch in _batches(site, done, made):
            indices = [int(feature["index"]) for feature in batch]
            if _is_there(web, target.model, target.source, indices[-1]):
                made.already += len(batch)
            else:
                _send(web, target.model, target.source, batch, made)
                _count(made, batch)
            memory.add(indices)
    return made


def _count(made: Upload, batch: Batch) -> None:
    made.batches += 1
    made.features += len(batch)
    made.activations += sum(len(feature["activations"]) for feature in batch)
    made.explanations += sum(len(feature["explanations"]) for feature in batch)


def _batches(site: SiteOfRun, done: set[int], made: Upload) -> Iterator[Batch]:
    """Features in requests that are neither too many nor too large."""
    batch: Batch = []
    size = 0
    for rows in site.rows([neuron for neuron in site.neurons() if neuron not in done]):
        feature = _feature(site, rows, made)
        if isinstance(feature, Failure):
            made.failures.append(feature)
            continue
        bytes_ = len(orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY))
        if batch and (len(batch) == MOST_FEATURES or size + bytes_ > LARGEST_BODY):
            yield batch
            batch, size = [], 0
        batch.append(feature)
        size += bytes_
    if batch:
        yield batch


def _feature(
    site: SiteOfRun, rows: dict[str, list[Row]] | Failure, made: Upload
) -> dict[str, Any] | Failure:
    if isinstance(rows, Failure):
        return rows
    (row,) = rows[FEATURES]
    if not rows[ACTIVATIONS]:
        neuron = NeuronId(site.run.subject, site.site, int(row["index"]))
        return Failure(neuron, "upload", "no-records", f"{neuron} has no records to upload")
    return {
        "index": row["index"],
        "density": row["frac_nonzero"],
        "topLogits": _logits(row, "pos"),
        "bottomLogits": _logits(row, "neg"),
        "explanations": [
            _explanation(said, made) for said in rows[EXPLANATIONS] if said["description"].strip()
        ],
        "activations": [_activation(record, made) for record in rows[ACTIVATIONS]],
    }


def _logits(row: Row, sign: str) -> list[dict[str, Any]]:
    tokens = orjson.loads(orjson.dumps(row[f"{sign}_str"]))
    pairs = zip(tokens, row[f"{sign}_values"], strict=True)
    return [{"token": token, "value": value} for token, value in pairs][:MOST_LOGITS]


def _explanation(row: Row, made: Upload) -> dict[str, str]:
    text = row["description"].strip()
    if len(text) > LONGEST_TEXT:
        made.cut_texts += 1
        text = text[: LONGEST_TEXT - 1] + "…"
    named = {"methodName": row["typeName"], "modelName": row["explanationModelName"]}
    return {"text": text} | {key: name for key, name in named.items() if name is not None}


def _activation(row: Row, made: Upload) -> dict[str, Any]:
    tokens, values = row["tokens"], row["values"]
    if len(values) > MOST_TOKENS:  # the part around the maximum
        made.cut_records += 1
        start = int(np.clip(row["maxValueTokenIndex"] - MOST_TOKENS // 2, 0, len(values)))
        start = min(start, len(values) - MOST_TOKENS)
        part = slice(start, start + MOST_TOKENS)
        tokens, values = orjson.loads(orjson.dumps(tokens))[part], values[part]
    record = {"tokens": tokens, "values": values}
    if row["binContains"] == TOP_GROUP:
        return record
    interval = {"quantileMin": row["binMin"], "quantileMax": row["binMax"]}
    share = row["binContains"]
    return record | interval | ({} if share is None else {"quantileFraction": share})


def _make_set(site: SiteOfRun, web: Web, description: str) -> None:
    target = site.maker.target
    body = {"name": target.set, "modelId": target.model, "description": description}
    reply = web.post("/api/source-set/new", body)
    known = reply.status == 409 or (reply.status == 400 and b"exist" in reply.content.lower())
    if not known:
        _require(reply, "the source set")


def _is_there(web: Web, model: str, source: str, index: int) -> bool:
    reply = web.get(f"/api/feature/{model}/{source}/{index}")
    if reply.status in (401, 403):
        _require(reply, "reading a feature")
    return reply.status == 200 and reply.content.strip() not in (b"", b"null")


def _send(web: Web, model: str, source: str, batch: Batch, made: Upload) -> None:
    """Send a batch, once more without the explanation model's name where that is refused."""
    path, body = "/api/feature/upload-batch", {"modelId": model, "source": source}
    if made.notices:  # the name was refused before
        _without_models(batch)
    reply = web.post(path, {**body, "features": batch})
    if reply.status in (400, 404, 422) and (names := _without_models(batch)):
        refusal = reply.says()
        reply = web.post(path, {**body, "features": batch})
        if reply.status < 300:
            made.notices.append(
                f"the explanation model {', '.join(sorted(names))} was refused ({refusal}): "
                "sent without its name"
            )
    _require(reply, f"features {batch[0]['index']} to {batch[-1]['index']}")


def _without_models(batch: Batch) -> set[str]:
    said = [explanation for feature in batch for explanation in feature["explanations"]]
    return {name for explanation in said if (name := explanation.pop("modelName", None))}


def _require(reply: Reply, what: str) -> None:
    """Raises ServiceError, with what to do, unless all went well."""
    if reply.status < 300:
        return
    advice = {
        401: "set NEURONPEDIA_API_KEY to a key of your account",
        403: "the key may not write there: use your own --source, or ask for access to the model",
        404: "check --model-id: the model must be known there",
        413: "the batch is too large for the server",
    }.get(reply.status, "check --model-id, --source and --explanation-type")
    raise ServiceError(f"{what}: the server answers {reply.says()}; {advice}")
