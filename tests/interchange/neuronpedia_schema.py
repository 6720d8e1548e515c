"""Neuronpedia's published classes, transcribed: every field, its type, and what may be null.

Written from the published description of the format, not from the code under test.
"""

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

Json = Any

ACTIVATION = {
    "id": "text",
    "tokens": "texts",
    "values": "numbers",
    "index": "text",
    "layer": "text",
    "modelId": "text",
    "maxValue": "number",
    "maxValueTokenIndex": "integer",
    "minValue": "number",
    "creatorId": "text",
    "dataSource": "text?",
    "dataIndex": "text?",
    "dfaValues": "numbers",
    "dfaTargetIndex": "integer?",
    "dfaMaxValue": "number?",
    "createdAt": "time",
    "lossValues": "numbers",
    "logitContributions": "text?",
    "binMin": "number?",
    "binMax": "number?",
    "binContains": "number?",
    "qualifyingTokenIndex": "integer?",
}
FEATURE = {
    "modelId": "text",
    "layer": "text",
    "index": "text",
    "creatorId": "text?",
    "createdAt": "time",
    "maxActApprox": "number",
    "hasVector": "truth",
    "vector": "numbers",
    "vectorLabel": "text?",
    "hookName": "text?",
    "topkCosSimIndices": "integers",
    "topkCosSimValues": "numbers",
    "neuron_alignment_indices": "integers",
    "neuron_alignment_values": "numbers",
    "neuron_alignment_l1": "numbers",
    "correlated_neurons_indices": "integers",
    "correlated_neurons_pearson": "numbers",
    "correlated_neurons_l1": "numbers",
    "correlated_features_indices": "integers",
    "correlated_features_pearson": "numbers",
    "correlated_features_l1": "numbers",
    "neg_str": "texts",
    "neg_values": "numbers",
    "pos_str": "texts",
    "pos_values": "numbers",
    "frac_nonzero": "number",
    "freq_hist_data_bar_heights": "numbers",
    "freq_hist_data_bar_values": "numbers",
    "logits_hist_data_bar_heights": "numbers",
    "logits_hist_data_bar_values": "numbers",
    "decoder_weights_dist": "numbers",
    "sourceSetName": "text?",
}
EXPLANATION = {
    "id": "text",
    "modelId": "text",
    "layer": "text",
    "index": "text",
    "description": "text",
    "authorId": "text",
    "typeName": "text?",
    "explanationModelName": "text?",
    "notes": "text?",
    "embedding": "numbers?",
    "createdAt": "time",
}
CLASSES = {"features": FEATURE, "activations": ACTIVATION, "explanations": EXPLANATION}
TYPES_IN_USE = {
    *("oai_token-act-pair", "oai_attention-head", "np_max-act", "np_max-act-logits"),
    *("np_acts-logits-general", "eleuther_acts_top20"),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def refuse_constant(literal: str) -> None:
    """JSON has no NaN and no infinity."""
    raise AssertionError(f"{literal} in a file")


def rows(folder: Path, part: str) -> list[list[dict[str, Json]]]:
    """The objects of each batch file of a source, in order of batches."""
    files = sorted((folder / part).iterdir(), key=lambda path: int(path.name.split(".")[0][6:]))
    return [
        [
            json.loads(line, parse_constant=refuse_constant)
            for line in gzip.decompress(path.read_bytes()).decode().splitlines()
        ]
        for path in files
    ]


def check(folder: Path) -> None:
    """Asserts that a source's folder is as published, traps included."""
    assert {path.name for path in folder.iterdir()} == {
        *("release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl"),
        *("features", "activations", "explanations"),
    }
    for name in ("release", "model", "sourceset", "source"):
        assert len((folder / f"{name}.jsonl").read_bytes().splitlines()) == 1
    model, source = folder.parts[-2:]
    assert re.fullmatch(r"\d+(-[a-z0-9]+)+", source)
    assert source.partition("-")[2] != "neurons"
    names = [{path.name for path in (folder / part).iterdir()} for part in CLASSES]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) < 1000
    assert all(re.fullmatch(r"batch-\d+\.jsonl\.gz", name) for name in names[0])
    for part, fields in CLASSES.items():
        for batch in rows(folder, part):
            for row in batch:
                # the importer takes the columns from the first line and fails on unknown ones
                assert list(row) == list(fields)
                assert (row["modelId"], row["layer"]) == (model, source)
                for name, kind in fields.items():
                    assert is_a(kind, row[name]), (part, name, row[name])
    indices = [[row["index"] for row in batch] for batch in rows(folder, "features")]
    assert sum(map(len, indices)) == len({index for batch in indices for index in batch})
    assert len(indices) == 1 or min(map(len, indices)) >= 1024
    for part in ("activations", "explanations"):
        for batch, own in zip(rows(folder, part), indices, strict=True):
            assert {row["index"] for row in batch} <= set(own)
            ids = [row["id"] for row in batch]
            assert len(set(ids)) == len(ids)
    for batch in rows(folder, "activations"):
        for row in batch:
            assert len(row["tokens"]) == len(row["values"])
            assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"]
            assert (row["binMin"] == -1) == (row["binContains"] == -1)
    for batch in rows(folder, "explanations"):
        assert {row["typeName"] for row in batch} <= {None, *TYPES_IN_USE}


def is_a(kind: str, value: Json) -> bool:
    """Whether a JSON value is of a transcribed type."""
    if kind.endswith("?"):
        return value is None or is_a(kind[:-1], value)
    if kind.endswith("s"):
        return isinstance(value, list) and all(is_a(kind[:-1], item) for item in value)
    if kind == "time":
        return isinstance(value, str) and _TIME.fullmatch(value) is not None
    if kind == "integer":
        return type(value) is int
    if kind == "number":
        return type(value) in {int, float} and math.isfinite(value)
    return isinstance(value, {"text": str, "truth": bool}[kind])
