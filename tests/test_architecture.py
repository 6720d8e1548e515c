"""The plan of the package: who may import whom, who may print, and how long things may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import pytest

Node = TypeVar("Node", bound=ast.AST)

PACKAGE = Path(__file__).resolve().parents[1] / "neuron_explainer"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in FILES
    if path.name != "__init__.py"
}

# Lowest first: a module imports from the lines above its own, and within its own as FREE says.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("records",),
    # what everybody may use, and the protocols
    (
        *("store", "parquet", "schemas", "splits", "activations", "tokens", "token_gain"),
        *("histogram", "firing", "head_pairs"),
        *("registry", "config", "workspace", "prompts", "few_shot", "token_text"),
        *("few_shot_heads", "pair_text"),
        *("conversation", "neuron_list"),
        *("explain.base", "simulate.base", "score.base", "subjects.base", "llm.base"),
    ),
    # parts that several implementations of one package share
    (
        *(
            "score.rows",
            "score.bootstrap",
            *("subjects.tokenizer", "subjects.one_sequence"),
            *("subjects.architectures", "subjects.weights", "subjects.places", "subjects.hooks"),
            *("subjects.loading", "subjects.structure", "subjects.interventions"),
            *("subjects.hub", "subjects.reading"),
            "subjects.attention",
            *("subjects.autoencoder", "subjects.sparse_*"),
            "simulate.asking",
        ),
        *("explain.asking", "explain.replies", "explain.shown"),
        *("simulate.rendering", "simulate.readings", "simulate.replies", "simulate.echo"),
        *("simulate.marking", "simulate.verdicts"),
    ),
    # implementations: what the registry names
    (
        *("explain.token_activation", "explain.highlight", "explain.token_space"),
        *("explain.max_act_logits", "explain.pair_lookup", "simulate.pair_lookup"),
        *("explain.attention_head",),
        *("explain.lookup", "explain.n_gram", "simulate.lookup", "simulate.nulls"),
        *("score.correlation", "score.variance", "score.calibration", "score.statistics"),
        *(
            "score.panel",
            "subjects.huggingface",
            "subjects.sparse",
            "subjects.negative",
            "subjects.chosen",
            "llm.*",
        ),
        *("score.classification", "score.sequences", "score.population", "score.degraded"),
        *("simulate.all_at_once", "simulate.one_at_a_time"),
        *("simulate.numbers", "simulate.detection", "simulate.fuzzing"),
        *("simulate.pair_detection", "simulate.pair_distance"),
    ),
    (
        *("runner", "shard_work", "record_rows", "record_set", "runs", "fits", "prompt_hashes"),
        "subject_loading",
    ),
    # stages: what a command runs
    (
        "collect.*",
        "explain.stage",
        "simulate.stage",
        "score.stage",
        "score.summary",
        "score.strata",
        "score.joined",
        "score.over_corpus",
        "score.checks",
    ),
    ("interchange.*", "compare.*", "publish.*", "train.*", "view.*"),
    ("terminal",),
    ("selection",),
    ("pipeline", "best_of", "show"),
    ("commands.options", "commands.corpus_options", "commands.model_options", "commands.output"),
    ("commands.view_options",),
    ("commands.neuronpedia_options", "commands.training_options", "commands.pass_options"),
    ("commands.*",),
    ("cli",),
    ("__main__",),
)
# (who, whom) of one layer that may know each other
FREE = (
    ("config", "registry"),
    ("prompts", "workspace"),
    ("store", "parquet"),
    ("conversation", "llm.base"),
    ("*.base", "head_pairs"),
    ("few_shot", "activations"),
    ("few_shot", "workspace"),
    ("few_shot_heads", "workspace"),
    ("pair_text", "token_text"),
    ("explain.asking", "explain.replies"),
    ("simulate.echo", "simulate.readings"),
    ("simulate.verdicts", "simulate.*"),
    ("score.sequences", "score.classification"),
    ("shard_work", "runner"),
    ("record_set", "record_rows"),
    ("score.panel", "score.*"),  # it is those scores, computed together
    ("collect.*", "collect.*"),  # one pass over a corpus, in several files
    ("interchange.*", "interchange.*"),
    ("publish.*", "publish.*"),
    ("view.*", "view.*"),
    ("llm.*", "llm.*"),
    ("subjects.places", "subjects.architectures"),
    ("subjects.places", "subjects.weights"),
    ("subjects.hooks", "subjects.places"),
    ("subjects.structure", "subjects.*"),
    ("subjects.attention", "subjects.weights"),
    ("subjects.interventions", "subjects.autoencoder"),
    ("subjects.loading", "subjects.hub"),
    ("subjects.reading", "subjects.places"),
    ("subjects.sparse_*", "subjects.hub"),
    ("subjects.sparse_*", "subjects.autoencoder"),
    ("subjects.sparse_*", "subjects.sparse_*"),
    ("compare.*", "compare.*"),  # one report, in several files
    ("train.*", "train.*"),  # one training, in several files
    ("score.summary", "score.stage"),
    ("commands.explaining", "commands.selecting"),  # explain --best-of ends in a selection
    ("score.checks", "score.strata"),
    ("score.stage", "score.joined"),
    ("score.stage", "score.over_corpus"),
    ("score.stage", "score.strata"),
    ("score.over_corpus", "score.joined"),
    ("score.over_corpus", "score.strata"),
)
STAGES = (
    *("collect", "explain", "simulate", "score", "interchange", "compare", "publish", "train"),
    "view",
)
# a stage that reads what another offers
READS = (
    ("compare.*", "score.*"),
    ("publish.*", "score.summary"),
    ("view.*", "score.*"),
    ("view.live_simulation", "simulate.marking"),
    # a training reads the activations that would be collected: the same text, cut the same way
    ("train.buffer", "collect.batches"),
    ("train.stage", "collect.stage"),
)

WHO_MAY_IMPORT = {
    # collect is here for its hot path: reservoirs and moments stay on the subject's device
    # train: an autoencoder is trained where the subject's activations are
    "torch": ("subjects.*", "collect.*", "train.*", "llm.local", "llm.local_*"),
    "transformers": ("subjects.*", "llm.local", "llm.local_*"),
    "huggingface_hub": ("publish.hub", "subjects.*"),
    "datasets": ("collect.datasets_corpus",),
    **dict.fromkeys(
        ("openai", "httpx", "httpx2", "aiohttp", "requests", "urllib", "http"),
        ("llm.*", "publish.hub", "interchange.*"),
    ),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "pydantic"), ("view.*",)),
}
WHO_MAY_SPEAK = ("cli", "commands.output")
WHO_MAY_READ_THE_ENVIRONMENT = ("llm.*", "cli", "commands.uploading")  # for keys
HEAVY = {
    *("torch", "transformers", "openai", "pyarrow", "scipy", "safetensors", "matplotlib"),
    *("datasets", "fastapi", "starlette", "uvicorn"),
}


def _fits(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def _layer(module: str) -> int:
    exact = [place for place, layer in enumerate(LAYERS) if module in layer]
    found = exact or [place for place, layer in enumerate(LAYERS) if _fits(module, layer)]
    assert len(found) == 1, f"{module} is in {len(found)} layers: add it to LAYERS"
    return found[0]


def _imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _internal(tree: ast.Module) -> set[str]:
    """The modules of this package that it imports, as in `TREES`."""
    found = set()
    for name in _imports(tree):
        parts = name.split(".")
        if parts[0] == PACKAGE.name:
            known = (".".join(parts[1:stop]) for stop in range(len(parts), 1, -1))
            found |= {next((module for module in known if module in TREES), "")}
    return found - {""}


def _may(importer: str, imported: str) -> bool:
    if _layer(imported) == _layer(importer):
        return _listed(importer, imported, FREE)
    if _layer(imported) > _layer(importer):
        return False
    home, other = (module.partition(".")[0] for module in (importer, imported))
    strangers = home in STAGES and other in STAGES and home != other
    strangers = strangers and not _listed(importer, imported, READS)
    return not strangers or imported.endswith(".base")


def _listed(importer: str, imported: str, pairs: tuple[tuple[str, str], ...]) -> bool:
    return any(fnmatchcase(importer, who) and fnmatchcase(imported, whom) for who, whom in pairs)


@pytest.mark.parametrize("module", TREES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    wrong = {imported for imported in _internal(TREES[module]) if not _may(module, imported)}
    assert not wrong, f"{module} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", TREES)
def test_heavy_and_networked_libraries_stay_where_they_belong(module: str) -> None:
    for name in _imports(TREES[module]):
        allowed = WHO_MAY_IMPORT.get(name.split(".")[0])
        assert allowed is None or _fits(module, allowed), f"{module} must not import {name}"


@pytest.mark.parametrize("module", TREES)
def test_only_the_command_line_prints_and_exits(module: str) -> None:
    calls = {ast.unparse(node.func) for node in _nodes(module, ast.Call)}
    assert _fits(module, WHO_MAY_SPEAK) or not calls & {"print", "sys.exit", "exit", "os._exit"}


@pytest.mark.parametrize("module", TREES)
def test_only_backends_and_the_command_line_read_the_environment(module: str) -> None:
    names = {ast.unparse(node) for node in _nodes(module, ast.Attribute)} | set(
        _imports(TREES[module])
    )
    reads = names & {"os.environ", "os.getenv", "os.environb", "os.putenv"}
    assert _fits(module, WHO_MAY_READ_THE_ENVIRONMENT) or not reads


def _nodes(module: str, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(TREES[module]) if isinstance(node, kind))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_thing_of_readable_length(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 350
    vague = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}
    assert not vague & set(path.stem.split("_"))


@pytest.mark.parametrize("module", TREES)
def test_a_function_fits_a_screen(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{module}.{node.name} has {lines} lines"


@pytest.mark.parametrize("module", TREES)
def test_everything_public_says_what_it_is(module: str) -> None:
    tree = TREES[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    silent = [name for name, node in _public(tree, "") if not ast.get_docstring(node)]
    assert not silent, f"{module}: no docstring at {', '.join(silent)}"


def _public(
    node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not child.name.startswith("_"):
                yield prefix + child.name, child
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                yield from _public(child, f"{child.name}.")


@pytest.mark.parametrize(
    "code",
    [
        "import neuron_explainer",
        "import neuron_explainer.records, neuron_explainer.config, neuron_explainer.registry",
        "sys.argv = ['neuron-explainer', '--help']; main()",
        "sys.argv = ['neuron-explainer', 'collect', '--help']; main()",
        "sys.argv = ['neuron-explainer', 'train-sae', '--help']; main()",
    ],
)
def test_importing_the_package_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *{name.split('.')[0] for name in sys.modules}))\n"
        + ("from neuron_explainer.cli import main\n" if "main()" in code else "")
        + code
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "neuron_explainer" in loaded
    assert not loaded & HEAVY


def test_the_rules_catch_what_they_are_for() -> None:
    assert not _may("simulate.nulls", "simulate.lookup")  # siblings
    assert not _may("explain.lookup", "runner")  # upwards
    assert not _may("score.stage", "collect.corpus")  # stages
    assert not _may("interchange.openai_import", "score.stage")
    assert not _may("compare.stage", "simulate.stage")
    assert not _may("score.stage", "compare.stage")
    assert _may("compare.stage", "score.stage")
    assert not _may("publish.tables", "score.stage")
    assert not _may("view.neuron", "compare.stage")
    assert _may("view.neuron", "score.strata")
    assert not _may("publish.card", "explain.lookup")
    assert not _may("train.stage", "score.stage")
    assert not _may("collect.stage", "train.stage")
    assert _may("publish.facts", "score.summary")
    assert _may("simulate.stage", "runner")
    assert _may("score.panel", "score.correlation")
