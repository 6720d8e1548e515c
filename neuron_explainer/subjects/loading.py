"""Model and tokenizer from a folder or a hub id, whole or not at all, and without running code."""

import pickle
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.hub import first_line, unreachable

AUTO = "auto"  # the device that stands for all there are
_TOO_MANY = 4  # times the weights that are there: no sharing of weights explains that


def load_model(source: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer. Raises SubjectError when they cannot be loaded whole."""
    import transformers
    from huggingface_hub.utils import logging as hub_logging
    from safetensors import SafetensorError

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries: what they come to is in our message
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    spread = _spread(device)
    here = {"local_files_only": not Path(source).exists() and unreachable() is not None}
    safely: Any = {"trust_remote_code": False, **here}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **safely)
        _check_number(source, config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safely)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            weights_only=True,
            **safely,
            **spread,
        )
        model, info = loaded
    except (
        *(OSError, ValueError, RuntimeError, KeyError),
        *(SafetensorError, pickle.UnpicklingError),
    ) as error:
        raise SubjectError(_cannot_load(source, error)) from error
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise SubjectError(
            f"{source} lacks the weights {absent[0]} ({len(absent)} in all): "
            "its config.json and its weights do not belong together"
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # without files, an empty one is made
        raise SubjectError(f"{source} has no tokenizer: put its tokenizer.json there")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SubjectError(
            f"{source} does not fit the devices that there are: choose --dtype bfloat16 or a "
            "smaller model"
        )
    return model if spread else _moved(model, device), tokenizer


def _spread(device: str) -> dict[str, str]:
    """What transformers needs to place a model's layers on all devices that there are."""
    if device != AUTO:
        return {}
    if find_spec("accelerate") is None:
        raise SubjectError(
            "--device auto needs accelerate: pip install 'neuron-explainer[accelerate]'"
        )
    return {"device_map": AUTO}


def _check_number(source: str, config: Any) -> None:
    """Refuse weights far too few for the configuration before memory is taken for the rest."""
    import transformers
    from safetensors import safe_open

    files = list(Path(source).glob("*.safetensors"))
    if not files or getattr(config, "quantization_config", None) is not None:
        return
    there = 0
    for file in files:
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            there += sum(prod(weights.get_slice(name).get_shape()) for name in names)
    classes: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = classes.from_config(config)
    needed = sum(parameter.numel() for parameter in model.parameters())
    if needed > _TOO_MANY * there:
        raise SubjectError(
            f"{source} holds {there:,} weights, but the model of its config.json has {needed:,}: "
            "its config.json and its weights do not belong together"
        )


def _moved(model: Any, device: str) -> Any:
    try:
        return model.to(device)
    except (
        AssertionError,
        RuntimeError,
    ) as error:  # the former is what a CPU build of torch raises
        reason = str(error).splitlines()[0]
        raise SubjectError(f"the model cannot go to --device {device}: {reason}") from error


def _cannot_load(source: str, error: Exception) -> str:
    reason = first_line(error)
    if "trust_remote_code" in str(error):
        return (
            f"the model {source} needs code of its own, and code that comes with a model is never "
            "run here: choose a version of it that transformers supports itself"
        )
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"the model in {source} holds pickled objects, which could run code and are not read: "
            "convert its weights to safetensors"
        )
    if Path(source).exists():
        return f"the model in {source} cannot be loaded: {reason}"
    return (
        f"no model at {source}: it is no folder here and the hub did not give it "
        f"({unreachable() or reason}); "
        "name a folder with config.json, model.safetensors and tokenizer.json"
    )
