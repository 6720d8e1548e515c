"""The command line's options, and what they mean in a workspace."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from neuron_explainer.config import PASSING
from neuron_explainer.errors import ConfigError
from neuron_explainer.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="Default: the current directory."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Default: run.toml, else the embedded example."),
]
SubjectName = Annotated[
    str | None,
    typer.Option("--subject", metavar="NAME", help="Its folder in data/; default: the only one."),
]
LayerOption = Annotated[
    str | None,
    typer.Option("--layer", metavar="N", help="MLP neurons of these layers, such as 6 or 0-3,5."),
]
SiteOption = Annotated[
    list[str] | None,
    typer.Option("--site", metavar="SITE", help="A site by TransformerLens name; repeatable."),
]
NeuronsOption = Annotated[
    str | None, typer.Option("--neurons", metavar="LIST", help="Only these, such as 0-99,512.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its folder in explanations/.")]
RunName = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Default: SUBJECT-EXPLAINER.")
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Same seed, same result.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
RetryFailures = Annotated[
    bool, typer.Option("--retry-failures", help="Ask again where a cause may have passed.")
]
RetryCause = Annotated[
    list[str] | None,
    typer.Option("--retry-cause", metavar="CAUSE", help="Ask again where this is it; repeatable."),
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of its own; repeatable."),
]
SimulatorOption = Annotated[
    list[str] | None, typer.Option("--simulator", metavar="NAME", help="Repeatable.")
]
ExplainerOption = Annotated[str, typer.Option(metavar="NAME", help="Who explains.")]
TableSize = Annotated[
    str | None, typer.Option(metavar="N", help="Rows of a lookup table: a number or all.")
]
SplitOption = Annotated[
    str, typer.Option(metavar="SPLIT", help="valid, or test for a final report.")
]
ChecksOption = Annotated[
    bool, typer.Option("--checks", help="Also how often each metric notices a worse explanation.")
]
OnlySplit = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="SPLIT", help="Only calibration, valid or test, in a folder of its own."
    ),
]
SelectSplit = Annotated[
    str, typer.Option("--split", metavar="SPLIT", help="calibration; valid flatters its scores.")
]
SelectBy = Annotated[
    str, typer.Option("--simulator", metavar="NAME", help="By whose simulations to choose.")
]
NewRun = Annotated[str, typer.Argument(metavar="NEW", help="The run to be written.")]
Candidates = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to choose from.")]
BestOf = Annotated[
    int | None,
    typer.Option("--best-of", metavar="N", help="Explain N times, and select on calibration."),
]
BestOfSimulator = Annotated[
    str | None, typer.Option("--simulator", metavar="NAME", help="For --best-of: who simulates.")
]
BestOfOption = Annotated[
    list[str] | None,
    typer.Option("--simulator-option", metavar="NAME=VALUE", help="Its options; repeatable."),
]
BestOfLLM = Annotated[
    str | None,
    typer.Option("--simulator-llm", metavar="MODEL", help="Its model; default: that of --llm."),
]
SimulateQuantile = Annotated[
    bool,
    typer.Option("--quantile", help="Also quantile records, to score over the whole corpus."),
]
SimulationName = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Folder in scoring/RUN/; default: the simulator."),
]
ModelOption = Annotated[
    str, typer.Option("--subject", metavar="MODEL", help="A folder or hub id of a causal LM.")
]
SaeOption = Annotated[
    str | None,
    typer.Option(
        "--sae",
        metavar="PATH",
        help="A sparse autoencoder: OpenAI's .pt file, a SAELens or sparsify folder, or a hub id "
        "USER/NAME/FOLDER. --site where its files do not name what it reads.",
    ),
]
FolderName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The subject's folder in data/.")
]
BosOption = Annotated[str, typer.Option(metavar="POLICY", help="prepend or none.")]
TopOption = Annotated[int, typer.Option(metavar="N", help="Top records a neuron.", min=4)]
RandomOption = Annotated[int, typer.Option(metavar="N", help="Random records a neuron.", min=3)]
PerBand = Annotated[int, typer.Option(metavar="N", help="Records a quantile band.", min=1)]
StoredAs = Annotated[str, typer.Option(metavar="TYPE", help="Stored as float16 or float32.")]
AllPairs = Annotated[
    bool, typer.Option("--pairs", help="Of heads also every pair of the texts kept, for export.")
]
WholeTable = Annotated[
    bool, typer.Option("--whole-table", help="Keep the means of all tokens: for --table-size all.")
]
ContextTable = Annotated[
    bool, typer.Option("--context-table", help="Also means of tokens after certain others.")
]
InspectedSubject = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="A folder or hub id of a causal LM.")
]
CheckCorpus = Annotated[
    str | None,
    typer.Option("--corpus", metavar="FILE", help="Text to try the autoencoder on."),
]
DeviceOption = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda, or auto: all there are, by accelerate.")
]
TypeOption = Annotated[
    str,
    typer.Option("--dtype", metavar="TYPE", help="Weights as float32, float16 or bfloat16."),
]
SignOption = Annotated[
    str, typer.Option(metavar="SIGN", help="positive, or negative: activations are negated.")
]
ModuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        metavar="SITE=PATH:SIDE",
        help="A site by hand: what enters a module (input) or leaves it (output); repeatable.",
    ),
]

NeuronArgument = Annotated[
    str, typer.Argument(metavar="NEURON", help="SUBJECT/SITE/INDEX, or SUBJECT/LAYER/INDEX.")
]
ShowTop = Annotated[int, typer.Option(metavar="N", help="How many top records.", min=0)]
ShowRandom = Annotated[int, typer.Option(metavar="N", help="How many random records.", min=0)]
ShowQuantile = Annotated[
    bool, typer.Option("--quantile", help="Also records of each quantile band.")
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Without colour: [token 7].")]

PublishedSource = Annotated[
    Path | None, typer.Argument(metavar="SOURCE", help="A folder {layer}/{neuron}.json or .jsonl.")
]
PublicUrl = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Fetch instead: gpt2-xl, gpt2-small … or https://…"),
]
PublishedKind = Annotated[
    str, typer.Option("--what", metavar="KIND", help="To fetch: records or explanations.")
]
PublishedLayers = Annotated[
    str | None, typer.Option("--layer", metavar="LIST", help="Only these, such as 6 or 0-3,5.")
]
SiteTemplate = Annotated[
    str | None,
    typer.Option("--site", metavar="SITE", help="Such as blocks.{layer}.mlp.hook_post/v4."),
]
DelphiSource = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A folder with latents/, or a hookpoint's.")
]
TokenizerFolder = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="DIR", help="The model's tokenizer.")
]
NeuronpediaSource = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A folder v1/MODEL/SOURCE, or one batch file.")
]
NamedSite = Annotated[
    str | None,
    typer.Option("--site", metavar="SITE", help="What the files are about; default: found out."),
]
BosFirst = Annotated[
    bool, typer.Option("--bos-first", help="The first token of each sequence is not scored.")
]
ImportName = Annotated[
    str, typer.Option("--name", metavar="NAME", help="The subject's, or the run's, name here.")
]
ExportFolder = Annotated[Path, typer.Option(metavar="DIR", help="A folder to write to.")]
AllNeurons = Annotated[
    bool, typer.Option("--all-neurons", help="All of the site, not only those of the run.")
]
RecordsAlone = Annotated[
    bool, typer.Option("--records", help="NAME is a subject: its records, without explanations.")
]
ExportSimulator = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose simulations; default: imported, else token-lookup."),
]

PublishFolder = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Default: published/ in the run's own folder."),
]
HubOption = Annotated[
    str | None,
    typer.Option("--hub", metavar="USER/NAME", help="Also push it to the Hugging Face hub."),
]
PublicOption = Annotated[
    bool, typer.Option("--public", help="Everybody may see it on the hub; default: private.")
]
DatasetName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of the dataset; default: the run's.")
]
LicenseOption = Annotated[
    str | None, typer.Option("--license", metavar="ID", help="Of the dataset, such as cc-by-4.0.")
]
CorpusLicense = Annotated[
    str | None, typer.Option(metavar="ID", help="Of the text that the records hold.")
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="CODE", help="Of the text, such as en; repeatable."),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="LIST", help="Tables left out, such as records,features."),
]
PartialOption = Annotated[
    bool, typer.Option("--partial", help="Publish a run that is not whole; the card says so.")
]


def subject_name(here: Workspace, name: str | None) -> str:
    """The subject asked for, or the only one there is. Raises ConfigError."""
    known = sorted(path.parent.parent.name for path in here.data.glob("*/corpus/manifest.json"))
    if name is None and len(known) == 1:
        return known[0]
    if name is None or name not in known:
        what = "which subject?" if name is None else f"no subject '{name}' in {here.data};"
        raise ConfigError(f"{what} --subject takes one of: {', '.join(known) or 'none yet'}")
    return name


def collected(
    here: Workspace, subject: str, layer: str | None, site: Sequence[str] | None
) -> list[str]:
    """Of the sites that were collected, those asked for, by default all."""
    from neuron_explainer.collect import sites
    from neuron_explainer.record_set import collected_sites

    known = collected_sites(here.data, subject)
    if not known:
        raise ConfigError(
            f"no site of {subject} is complete: finish it with neuron-explainer collect"
        )
    return sites.choose(known, layer, site or ()) if layer or site else list(known)


def retried(passing: bool, causes: Sequence[str] | None) -> tuple[str, ...]:
    """The causes of failures that are asked about again."""
    return (*(PASSING if passing else ()), *(causes or ()))


def options_of(
    given: Sequence[str] | None, *, flag: str = "--option", **named: str | None
) -> dict[str, Any]:
    """`--option NAME=VALUE` and options with flags of their own; numbers become numbers."""
    options = {key: value for key, value in named.items() if value is not None}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{flag} {text}: write NAME=VALUE")
        options[key.replace("-", "_")] = value
    return {key: _plain(value) for key, value in options.items()}


def _plain(value: Any) -> bool | int | float | str:
    """A value as it is meant: true and false, numbers, else text."""
    text = str(value)
    if text in {"true", "false"}:
        return text == "true"
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text
