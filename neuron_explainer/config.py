"""run.toml and flags, as frozen settings. An unknown key is an error that names the nearest one.

`Annotated[int, 4]` is a whole number of at least 4.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from neuron_explainer.errors import ConfigError
from neuron_explainer.registry import unknown

Made = TypeVar("Made")

# what may pass another time: the causes that --retry-failures asks again about
PASSING = (
    *("timeout", "connection", "rate-limited", "server-error", "malformed-reply", "cut-short"),
    *("refused", "budget", "cancelled"),
)


@dataclass(frozen=True, slots=True)
class SaeSettings:
    """A sparse autoencoder over one of the subject's sites."""

    path: str  # a file, a folder or a hub id
    site: str | None = None  # "blocks.6.hook_resid_post"; default: what its own files say
    name: str | None = None  # default: the name of the file or folder

    @property
    def latents(self) -> str:
        """The site of its latents. `site` must be known by now."""
        path = Path(self.path)
        name = self.name or (path.stem if path.suffix == ".pt" else path.name)
        return f"{self.site}/{name}"


@dataclass(frozen=True, slots=True)
class SubjectSettings:
    """The model being explained."""

    model: str = ""  # a folder or a hub id
    name: str | None = None  # its folder under data/; default: the last part of `model`
    device: str = "cpu"  # or "cuda", or "auto": all there are
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    sae: tuple[SaeSettings, ...] = ()
    by_hand: tuple[str, ...] = ()  # further sites: "blocks.*.mlp.hook_post=PATH:input"

    @property
    def folder_name(self) -> str:
        """The subject's name in paths and neuron ids."""
        model = Path(self.model)
        return self.name or (model.resolve() if model.is_dir() else model).name


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """What is collected, and how."""

    corpus: str = ""  # a file, a folder, or a dataset's hub id
    layers: str | None = None  # "0-3,5": these layers' MLP neurons
    sites: tuple[str, ...] = ()  # by TransformerLens name
    neurons: str | None = None  # "0-99,512": only these, of every site; default: all
    split_on: Literal["file", "blank-line", "line"] = "file"
    text_field: str = "text"
    corpus_config: str | None = None  # of a dataset that has several
    corpus_split: str | None = None  # of a dataset; default: train
    documents: Annotated[int, 1] | None = None  # taken at most; default: all
    corpus_tokens: Annotated[int, 1] | None = None  # likewise, BOS not counted
    shuffle: bool = False  # take the documents in an order that the seed says
    excerpt_tokens: Annotated[int, 2] = 64
    minimum_tokens: Annotated[int, 1] = 16
    bos: Literal["prepend", "none"] = "prepend"
    top: Annotated[int, 4] = 20
    random: Annotated[int, 3] = 20
    per_band: Annotated[int, 0] = 4
    activations: Literal["float16", "float32"] = "float16"
    token_minimum: Annotated[int, 1] = 5  # occurrences a token needs for a row of its own
    kept_tokens: Annotated[int, 0] = 100  # rows of the token table that are kept of each neuron
    whole_table: bool = False  # keep them all: needed for the published lookup baseline
    context_table: bool = False  # also rows for a token after a certain other
    pairs: bool = False  # of heads: every pair of a record's text, not its own alone
    logit_tokens: Annotated[int, 0] = 10  # tokens promoted, and as many suppressed, that are kept
    input_tokens: Annotated[int, 0] = 10  # tokens that excite, and as many that inhibit, likewise
    nearest: Annotated[int, 0] = 10  # neurons of the site that are most like a neuron
    memory_mb: Annotated[int, 16] = 1024  # for token tables and quantiles
    batch: Annotated[int, 1] = 32  # excerpts
    batch_tokens: Annotated[int, 0] = 0  # padding included; 0: `batch` excerpts, 65,536 on a GPU
    checkpoint: Annotated[int, 0] = 100_000  # excerpts between two saved states; 0: none
    seed: int = 0
    sign: Literal["positive", "negative"] = "positive"  # negative: activations are negated


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a sparse autoencoder is trained."""

    site: str = ""  # by TransformerLens name
    corpus: str = ""
    file_format: Literal["saelens", "sparsify", "openai"] = "saelens"
    split_on: Literal["file", "blank-line", "line"] = "file"
    text_field: str = "text"
    corpus_config: str | None = None  # these five as for collect
    corpus_split: str | None = None
    documents: Annotated[int, 1] | None = None
    corpus_tokens: Annotated[int, 1] | None = None
    shuffle: bool = False
    excerpt_tokens: Annotated[int, 2] = 64
    minimum_tokens: Annotated[int, 1] = 16
    bos: Literal["prepend", "none"] = "prepend"
    latents: Annotated[int, 2] | None = None  # default: `expansion` times the site's width
    expansion: Annotated[int, 1] = 8
    k: Annotated[int, 1] | None = None  # TopK; default where `l1` is not given: 32
    l1: float | None = None  # ReLU with this weight of the latents' sum
    normalisation: Literal["none", "layer_norm", "constant_norm_rescale"] = "none"
    tokens: Annotated[int, 1] = 2_000_000
    batch: Annotated[int, 1] = 1024  # tokens a step
    lr: float | None = None  # default: less for more latents
    warm_up: Annotated[float, 0.0] = 0.05  # share of the steps
    decay: Annotated[float, 0.0] = 0.2  # share of the steps, at the end
    forward: Annotated[int, 1] = 32  # excerpts a forward pass of the subject
    memory_mb: Annotated[int, 16] = 256  # for the buffer of activations
    checkpoint: Annotated[int, 0] = 1_000_000  # tokens between two saved states; 0: none
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The language model that explains or simulates, where one is needed."""

    llm: str | None = None  # "openai/MODEL", "local/PATH" or "scripted/FILE"
    base_url: str | None = None  # of a server that speaks OpenAI's protocol
    device: str = "cpu"  # of a local model
    dtype: str = "auto"
    context: int | None = None  # tokens that the model takes, where its server does not tell
    max_cost: float | None = None  # US dollars, for the models that have a price
    max_tokens: int | None = None  # read and written
    concurrency: Annotated[int, 1] = 32  # requests at once, at most
    write_batch: str | None = None  # a folder for requests, which are then not sent
    read_batch: str | None = None  # a folder of replies to such requests

    @property
    def in_files(self) -> bool:
        """Whether requests and replies go through batch files."""
        return self.write_batch is not None or self.read_batch is not None


@dataclass(frozen=True, slots=True)
class ExplainSettings:
    """Who explains, with which options."""

    explainer: str = "token-lookup"
    run: str | None = None  # default: subject and explainer
    neurons: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = ModelSettings()
    retry: tuple[str, ...] = ()  # causes of failures that are asked about again


@dataclass(frozen=True, slots=True)
class SimulateSettings:
    """Who simulates."""

    simulators: tuple[str, ...] = ("token-lookup", "constant", "shuffled")
    test: bool = False  # also the test split, for a final report
    split: Literal["calibration", "valid", "test"] | None = None  # this one alone
    quantile: bool = False  # also quantile records, for the correlation over the whole corpus
    seed: int = 0
    concurrency: Annotated[int, 1] = 64  # neurons at once
    model: ModelSettings = ModelSettings()
    retry: tuple[str, ...] = ()  # causes of failures that are asked about again


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """What is scored."""

    split: Literal["valid", "test", "calibration"] = "valid"  # the last is for selecting alone
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SelectSettings:
    """By what one of several runs' explanations is chosen."""

    simulator: str
    split: Literal["calibration", "valid"] = "calibration"


@dataclass(frozen=True, slots=True)
class BestOfSettings:
    """How many explanations to choose from, and who simulates them for that."""

    runs: Annotated[int, 2]
    simulator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = ModelSettings()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `neuron-explainer run` needs."""

    subject: SubjectSettings
    collect: CollectSettings = CollectSettings()
    explain: ExplainSettings = ExplainSettings()
    simulate: SimulateSettings = SimulateSettings()
    score: ScoreSettings = ScoreSettings()


def load(path: Path) -> Settings:
    """The settings in a TOML file; paths in it are relative to the file. Raises ConfigError."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration at {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from error
    return _anchored(build(Settings, content, str(path)), path.parent)


def build(made: type[Made], content: object, where: str) -> Made:
    """A settings dataclass from plain values, checked key by key. Raises ConfigError."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} must be a table of settings, not {content!r}")
    hints = get_type_hints(made, include_extras=True)
    for key in content:
        if key not in hints:
            raise ConfigError(f"{where}: {unknown('setting', str(key), list(hints))}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in content.items()}
    for needed in fields(made):  # type: ignore[arg-type]
        if needed.name not in values and _required(needed):
            raise ConfigError(f"{where}: '{needed.name}' is missing")
    return made(**values)


def _required(needed: Any) -> bool:
    return needed.default is MISSING and needed.default_factory is MISSING


def _value(hint: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number, least = _value(arguments[0], value, where), arguments[1]
        if number < least:
            raise ConfigError(f"{where} is {number}; it must be at least {least}")
        return number
    if is_dataclass(hint):
        return build(cast(type, hint), value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where} is {value!r}; choose {' or '.join(map(str, arguments))}")
    if origin in (Union, UnionType):
        chosen = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else _value(chosen[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_value(arguments[0], item, where) for item in value)
    if hint is float and type(value) is int:
        value = float(value)
    expected = dict if origin is not None else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(f"{where} is {value!r}; it must be of type {expected.__name__}")
    return value


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Paths that exist relative to the file become so; others are hub ids."""

    def anchor(text: str) -> str:
        return str(folder / text) if text and (folder / text).exists() else text

    subject = settings.subject
    saes = tuple(replace(sae, path=anchor(sae.path)) for sae in subject.sae)
    return replace(
        settings,
        subject=replace(subject, model=anchor(subject.model), sae=saes),
        collect=replace(settings.collect, corpus=anchor(settings.collect.corpus)),
    )
