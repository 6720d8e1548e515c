"""The options that name a language model, for every command that may ask one."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from neuron_explainer.config import ModelSettings

LLMOption = Annotated[
    str | None,
    typer.Option("--llm", metavar="MODEL", help="openai/MODEL, local/PATH or scripted/FILE."),
]
BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="A server that speaks OpenAI's protocol.")
]
MaxCost = Annotated[
    float | None, typer.Option(metavar="USD", help="Stop before more is spent.", min=0.0)
]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Stop before more are read and written.", min=1)
]
Concurrency = Annotated[int, typer.Option(metavar="N", help="Requests at once, at most.", min=1)]
LLMDevice = Annotated[
    str, typer.Option("--llm-device", metavar="NAME", help="Of a local model: cpu or cuda.")
]
LLMDtype = Annotated[
    str, typer.Option("--llm-dtype", metavar="TYPE", help="Of a local model's weights.")
]
LLMContext = Annotated[
    int | None,
    typer.Option(
        "--llm-context", metavar="N", help="Its context, if the server does not tell.", min=1
    ),
]
WriteBatch = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Write the requests as batch files there; send nothing."),
]
ReadBatch = Annotated[
    str | None, typer.Option(metavar="DIR", help="Read the replies to them from there.")
]

_OPTIONS: dict[str, Any] = {  # in the order of the help; the names are those of ModelSettings
    "llm": LLMOption,
    "base_url": BaseUrl,
    "max_cost": MaxCost,
    "max_tokens": MaxTokens,
    "concurrency": Concurrency,
    "device": LLMDevice,
    "dtype": LLMDtype,
    "context": LLMContext,
    "write_batch": WriteBatch,
    "read_batch": ReadBatch,
}


_OF_FILES = ("write_batch", "read_batch")


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options in place of its parameter `model`, which gets their values."""
    return _with(command, _OPTIONS)


def with_model_at_once(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_model`, for a command that waits for replies, so not with those of batch files.

    A local model's device and type have `llm_` before their names: the subject has its own.
    """
    named = {"device": "llm_device", "dtype": "llm_dtype", "context": "llm_context"}
    options = {name: each for name, each in _OPTIONS.items() if name not in _OF_FILES}
    return _with(command, {named.get(name, name): each for name, each in options.items()})


def _with(command: Callable[..., None], asked: dict[str, Any]) -> Callable[..., None]:
    fields = {name: name.removeprefix("llm_") for name in asked}

    @wraps(command)
    def filled(**given: Any) -> None:
        model = ModelSettings(**{field: given.pop(name) for name, field in fields.items()})
        command(**given, model=model)

    signature = inspect.signature(command)
    defaults = ModelSettings()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, fields[name]),
            annotation=annotation,
        )
        for name, annotation in asked.items()
    ]
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        named = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += options if parameter.name == "model" else [named]
    filled.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    filled.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return filled
