"""Every reference value of the published method, through the public functions.

Where the reference lets NaN or an infinity flow, ours is undefined: that holds for all cases alike.
The file lies beside the checkout; NEURON_EXPLAINER_GOLDEN names another folder.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuron_explainer.activations import (
    NO_VALID_NUMBER,
    distributions_at_unknown,
    expected_activation,
    maximum_activation,
    non_zero_share,
    normalise,
)
from neuron_explainer.errors import DataError
from neuron_explainer.explain.n_gram import Sample, build_n_gram_trie
from neuron_explainer.records import SPLITS
from neuron_explainer.score.base import Calibrator, Scorer
from neuron_explainer.score.calibration import LinearCalibration, PercentileCalibration
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.variance import (
    absolute_deviation_explained,
    explained_variance_uncentered,
)
from neuron_explainer.splits import assign_splits
from neuron_explainer.subjects.autoencoder import Autoencoder, layer_norm, top_k
from neuron_explainer.subjects.sparse_openai import from_state, to_state
from neuron_explainer.subjects.sparse_quality import normalised_l1, normalised_mean_squared_error

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "golden"
FILE = Path(os.environ.get("NEURON_EXPLAINER_GOLDEN", BESIDE)) / "reference.json"
if not FILE.is_file():
    pytest.skip(f"no reference values: {FILE} does not exist", allow_module_level=True)

Json = Any
Case = dict[str, Json]
Floats = NDArray[np.float64]
CASES: list[Case] = json.loads(FILE.read_bytes())["cases"]
for before, case in pairwise(CASES):
    if case["reference"] == "same":
        case["reference"] = before["reference"]

# Covered by tests/interchange/test_openai.py.
SERIALISATION_CASES = ("fast_dataclasses.dumps", "dumps(", "loads without")

SCORERS: dict[str, Scorer] = {
    "ev_correlation_score": correlation,
    "rsquared_score": explained_variance_uncentered,
    "absolute_dev_explained_score": absolute_deviation_explained,
}
UNDEFINED = ("NaN", "Infinity", "-Infinity")


def assert_agree(ours: Json, reference: Json) -> None:
    """To a relative 1e-9, with a number that is none ⇔ None."""
    if isinstance(reference, dict):
        assert ours.keys() == reference.keys()
        for key, value in reference.items():
            assert_agree(ours[key], value)
    elif isinstance(reference, list):
        assert len(ours) == len(reference)
        for mine, value in zip(ours, reference, strict=True):
            assert_agree(mine, value)
    elif reference in UNDEFINED:
        assert ours is None
    elif isinstance(reference, str):
        assert ours == reference
    else:
        assert ours is not None
        assert math.isclose(ours, reference, rel_tol=1e-9, abs_tol=1e-15), (ours, reference)


def _row(sequences: Sequence[Json]) -> Floats:
    """One neuron, all sequences concatenated (1, tokens)."""
    return np.hstack([np.asarray(sequence, dtype=np.float64) for sequence in sequences])[None]


def _scores(truth: Floats, predicted: Floats) -> dict[str, float | None]:
    mask = np.ones(truth.shape, dtype=np.bool_)
    return {name: scorer(truth, predicted, mask).at(0).value for name, scorer in SCORERS.items()}


def check_normalise(given: Json, expected: Json) -> None:
    assert normalise(given["activations"], given["max_activation"]).tolist() == expected


def check_maximum(given: Json, expected: Json) -> None:
    assert_agree(maximum_activation([np.array(record) for record in given]), expected)


def check_share(given: Json, expected: Json) -> None:
    assert_agree(non_zero_share([np.array(record) for record in given], 1.0), expected)


def check_splits(given: Json, expected: Json) -> None:
    counts = given["n_top"], given["n_random"], given["n_examples_per_split"]
    if "raises" in expected:
        with pytest.raises(DataError):
            assign_splits(*counts, rule="reference")
        return
    splits = assign_splits(*counts, rule="reference")
    named = {
        split: [f"T{n}" for n in splits[split][0]] + [f"R{n}" for n in splits[split][1]]
        for split in SPLITS
    }
    assert named == expected


def check_expected(given: Json, expected: Json) -> None:
    distribution = expected_activation(given)
    if not expected["order"]:
        # The reference makes a model that names no number predict 0.
        assert distribution == NO_VALID_NUMBER
        return
    names = [str(int(value)) for value in distribution.values]
    ours = {
        "norm_probabilities": dict(zip(names, distribution.probabilities, strict=True)),
        "order": list(distribution.values),
        "expected_value": distribution.expected,
    }
    assert_agree(ours, expected)


def check_parse(given: Json, expected: Json) -> None:
    choice = given["response"]["choices"][0]
    logs = choice["logprobs"]
    for offsets in (logs["text_offset"], None):
        found = distributions_at_unknown(
            logs["tokens"],
            logs["top_logprobs"],
            given["tokens"],
            text=choice["text"],
            text_offsets=offsets,
        )
        read = [item for item in found if item is not None]
        assert_agree([item.expected for item in read], expected["expected_activations"])
        assert_agree([item.values for item in read], expected["distribution_values"])
        assert_agree([item.probabilities for item in read], expected["distribution_probabilities"])


def check_score(given: Json, expected: Json) -> None:
    assert_agree(_scores(_row([given["true"]]), _row([given["predicted"]])), expected)


def check_aggregate(given: Json, expected: Json) -> None:
    # The random-only score is that of all sequences but the first.
    skipped = 1 if given.get("subset") == "sequences[1:]" else 0
    truth, predicted = given["true"][skipped:], given["predicted"][skipped:]
    whole = _scores(_row(truth), _row(predicted))
    each = [_scores(_row([t]), _row([p])) for t, p in zip(truth, predicted, strict=True)]
    preferred = {"preferred": whole["ev_correlation_score"]}
    assert_agree({"aggregate": whole | preferred, "per_sequence": each}, expected)


def check_calibration(calibration: type[Calibrator], given: Json, expected: Json) -> None:
    truth, predicted = _row(given["calibration_true"]), _row(given["calibration_predicted"])
    fitted = calibration.fit(truth, predicted, np.ones(truth.shape, dtype=np.bool_))

    def apply(values: Json) -> Json:
        row = np.asarray(values, dtype=np.float64)
        return fitted.apply(row.reshape(1, -1)).reshape(row.shape).tolist()

    values = given["uncal_values"]
    assert_agree(apply(given["apply_to"]), expected["apply"])
    assert_agree(apply(values), expected["simulate_expected"])
    assert_agree(apply([[0.0, v] for v in values]), expected["simulate_distribution_values"])
    assert_agree(apply([]), expected["empty"])
    if isinstance(fitted, LinearCalibration):
        assert_agree(fitted.slope.tolist(), [expected["slope"]])
        assert_agree(fitted.intercept.tolist(), [expected["intercept"]])
    scored = given["S"]
    scores = _scores(_row(scored["true"]), fitted.apply(_row(scored["predicted"])))
    preferred = {"preferred": scores["ev_correlation_score"]}
    assert_agree(scores | preferred, expected["scores_on_S"])


def check_linear(given: Json, expected: Json) -> None:
    check_calibration(LinearCalibration, given, expected)


def check_percentile(given: Json, expected: Json) -> None:
    check_calibration(PercentileCalibration, given, expected)


def check_layer_norm(given: Json, expected: Json) -> None:
    x, norm = layer_norm(_double(given))
    ours = {"x": x.tolist(), "mu": norm.mean.tolist(), "std": norm.scale.tolist()}
    assert_agree(ours, expected)


def check_top_k(given: Json, expected: Json) -> None:
    assert_agree(top_k(_double(given), 2).tolist(), expected)


def _autoencoder(weights: Json) -> Autoencoder:
    names = ("encoder.weight", "decoder.weight", "pre_bias", "latent_bias")
    state: Case = {name: _double(weights[name.replace(".", "_")]) for name in names}
    state |= {"activation": "TopK", "activation_state_dict": {"k": 2, "postact_fn": "ReLU"}}
    return from_state(state, torch.float64)


def _double(values: Json) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def check_autoencoder(given: Json, expected: Json) -> None:
    model, x = _autoencoder(given), _double(given["x"])
    latents = model.encode(x)
    ours = {"latents": latents.tolist(), "recon": model.decode(latents, model.norm(x)).tolist()}
    assert_agree(ours, expected)


def check_losses(given: Json, expected: Json) -> None:
    tensors = {name: _double(value) for name, value in given.items()}
    error = normalised_mean_squared_error(tensors["reconstruction"], tensors["original"])
    size = normalised_l1(tensors["latents"], tensors["original"])
    assert error is not None
    assert size is not None
    assert_agree({"nmse": error, "nl1": size, "loss": error + 0.01 * size}, expected)


def check_state_dict(given: Json, expected: Json) -> None:
    encoder, decoder = np.zeros((3, 4)), np.zeros((4, 3))
    biases = {"pre_bias": np.zeros(4), "latent_bias": np.zeros(3)}
    model = _autoencoder({"encoder_weight": encoder, "decoder_weight": decoder, **biases})

    def shown(value: Json) -> Json:
        if isinstance(value, torch.Tensor):
            return list(value.shape)
        return value if isinstance(value, dict) else str(value)

    assert {name: shown(value) for name, value in to_state(model).items()} == expected


SUBJECTS: dict[str, Callable[[int, int], float]] = {
    "act 1.0 where token_int==2": lambda token, _: float(token == 2),
    "act 1.0 at position 0": lambda _, position: float(position == 0),
}


def check_n_gram(given: Json, expected: Json) -> None:
    fires = SUBJECTS[given["model_fn"]]

    def activate(batch: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[fires(token, position) for position, token in enumerate(ids)] for ids in batch]

    samples = [
        Sample(tuple(item["tokens"]), tuple(item["token_ints"]), item["idx"], item["act"])
        for item in given["train_set"]
    ]
    trie = build_n_gram_trie(activate, samples, given["padding_token"])
    predicted = [trie.predict(query) for query in given["queries"]]
    assert_agree({"trie": trie.as_dict(), "predict": predicted}, expected)


CHECKS: dict[str, Callable[[Json, Json], None]] = {
    "activation_records.normalize_activations": check_normalise,
    "normalize_activations": check_normalise,
    "activation_records.calculate_max_activation": check_maximum,
    "calculate_max_activation": check_maximum,
    "non_zero_activation_proportion": check_share,
    "NeuronRecord.{train,calibration,valid,test}_activation_records": check_splits,
    "simulator.compute_predicted_activation_stats_for_token": check_expected,
    "simulator.parse_simulation_response": check_parse,
    "scoring.correlation_score": check_score,
    "scoring.simulate_and_score": check_aggregate,
    "aggregate_scored_sequence_simulations": check_aggregate,
    "calibrated_simulator.LinearCalibratedNeuronSimulator": check_linear,
    "calibrated_simulator.PercentileMatchingCalibratedNeuronSimulator": check_percentile,
    "model.LN": check_layer_norm,
    "model.TopK": check_top_k,
    "model.Autoencoder": check_autoencoder,
    "loss.normalized_mean_squared_error": check_losses,
    "Autoencoder.state_dict": check_state_dict,
    "sparse_autoencoder.explanations.create_n2g_explanation": check_n_gram,
}


def _check_of(case: Case) -> Callable[[Json, Json], None] | None:
    found = [check for name, check in CHECKS.items() if case["reference"].startswith(name)]
    return found[0] if found else None


NUMERIC = [case for case in CASES if not case["reference"].startswith(SERIALISATION_CASES)]


@pytest.mark.parametrize("case", NUMERIC, ids=[case["id"] for case in NUMERIC])
def test_our_value_is_that_of_the_reference(case: Case) -> None:
    check = _check_of(case)
    assert check is not None, f"nothing checks {case['reference']}"
    check(case["input"], case["expected"])


def test_every_case_is_checked_here_or_with_the_file_formats() -> None:
    here = {case["id"] for case in NUMERIC if _check_of(case)}
    formats = {c["id"] for c in CASES if c["reference"].startswith(SERIALISATION_CASES)}
    assert here | formats == {case["id"] for case in CASES}
    assert not here & formats
