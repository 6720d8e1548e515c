"""Bad input ends with exit code 2 and one line that says what to do, and changes no file."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from commands import Command, Done, files, in_process
from example_corpus import first_documents

from neuron_explainer import workspace
from neuron_explainer.workspace import Workspace

SITE, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
RUN = "tiny-token-lookup"
Refuse = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def shared(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the small workspace that no test in here changes: that is what they test."""
    root = tmp_path_factory.mktemp("bad") / "workspace"
    shutil.copytree(small_workspace.root, root)
    return Workspace(root)


@pytest.fixture
def own(small_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the small workspace to damage."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    return Workspace(root)


def _one_line(done: Done) -> str:
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    return done.err.removeprefix("error: ").removesuffix("\n")


@pytest.fixture
def refuse(command: Command, shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Runs a command in the shared workspace that must be refused, and gives the line it says."""
    monkeypatch.chdir(shared.root)

    def run(*arguments: object) -> str:
        before = files(shared.root)
        line = _one_line(command(*arguments))
        assert files(shared.root) == before
        return line

    return run


# ── names and numbers ─────────────────────────────────────────────────────────────────────────

WRONG = {
    "a malformed neuron": (
        ("show", "twelve"),
        "'twelve' is not a neuron: write SUBJECT/SITE/INDEX",
    ),
    "a neuron below zero": (("show", f"tiny/{SITE}/-1"), "is not a neuron"),
    "a neuron out of range": (("show", "tiny/0/512"), f"tiny/{SITE} has neurons 0 to 511, no 512"),
    "a latent out of range": (("show", f"tiny/{LATENTS}/1024"), "has neurons 0 to 1023, no 1024"),
    "a layer not collected": (
        ("show", "tiny/3/1"),
        "neuron-explainer collect --subject tiny --layer 3",
    ),
    "a site not collected": (
        ("show", "tiny/blocks.1.hook_mlp_out/1"),
        "collect --subject tiny --site blocks.1.hook_mlp_out",
    ),
    "an unknown subject": (("explain", "--subject", "tny"), "--subject takes one of: tiny"),
    "an unknown layer": (
        ("explain", "--layer", "9"),
        "there is no layer 9: there are blocks.0 with",
    ),
    "a layer not there": (
        ("explain", "--layer", "1"),
        "there is no site 'blocks.1.mlp.hook_post'",
    ),
    "no layer at all": (("explain", "--layer", "x"), "'x' is no list of layers"),
    "layers backwards": (("explain", "--layer", "2-0"), "'2-0' runs backwards: write 0-2"),
    "layers without end": (("explain", "--layer", "0-999999"), "there is no layer"),
    "an unknown site": (("explain", "--site", "blox"), f"and {LATENTS}"),
    "neurons out of range": (("explain", "--neurons", "500-600"), "there is no neuron 512"),
    "neurons backwards": (("explain", "--neurons", "9-3"), "write 3-9"),
    "no neurons at all": (("explain", "--neurons", "few"), "'few' is no list of neurons"),
    "a superscript": (("explain", "--neurons", "²"), "'²' is no list of neurons"),
    "an unknown explainer": (
        ("explain", "--explainer", "token-lokup"),
        "did you mean 'token-lookup",
    ),
    "an unknown option": (("explain", "--option", "tabel_size=3"), "did you mean 'table_size'?"),
    "half an option": (("explain", "--option", "table_size"), "write NAME=VALUE"),
    "a table of no size": (("explain", "--table-size", "big"), "give a number or 'all'"),
    "a table of size 0": (("explain", "--table-size", "0"), "give a number or 'all'"),
    "a table below 0": (("explain", "--table-size", "-3"), "give a number or 'all'"),
    "a superscript table": (("explain", "--table-size", "²"), "give a number or 'all'"),
    "no such choice of rows": (("explain", "--option", "choose=best"), "by 'variance' or 'mean'"),
    "another configuration": (
        ("explain", "--table-size", "7"),
        f"{RUN} was made with table_size = 50, not 7; choose another name or delete that folder",
    ),
    "another seed": (("simulate", RUN, "--seed", "3"), "was made with seed = 0, not 3"),
    "another split": (("simulate", RUN, "--test"), "was made with splits = "),
    "a run outside": (("explain", "--run", "../evil"), "'../evil' cannot name a run"),
    "a run in a run": (("simulate", f"{RUN}/deeper"), "cannot name a run"),
    "an unknown run to simulate": (
        ("simulate", "lost"),
        "there is no run 'lost' in explanations; ",
    ),
    "an unknown run to score": (("score", "lost"), f"there are: {RUN}, {RUN}-all"),
    "an unknown run to export": (("export", "openai", "lost", "--to", "out"), f"there are: {RUN}"),
    "an unknown simulator": (
        ("simulate", RUN, "--simulator", "shufled"),
        "did you mean 'shuffled'?",
    ),
    "an unknown option of it": (
        ("simulate", f"{RUN}-all", "--simulator", "shuffled", "--option", "off=x"),
        "unknown option of shuffled 'off'; did you mean 'of'?",
    ),
    "an unknown one within it": (
        ("simulate", f"{RUN}-all", "--simulator", "shuffled", "--option", "of=token-lokup"),
        "unknown simulator 'token-lokup'; did you mean 'token-lookup'?",
    ),
    "a simulator that has not run": (
        ("score", RUN, "--simulator", "nobody"),
        f"neuron-explainer simulate {RUN} --simulator nobody",
    ),
    "a simulator outside": (("score", RUN, "--simulator", "../x"), "cannot name a run"),
    "a split that is none": (("score", RUN, "--split", "train"), "choose valid or test"),
    "a split that was not simulated": (("score", RUN, "--split", "test"), "--split test"),
    "an import of nothing": (("import", "openai", "nowhere", "--name", "x"), "nowhere"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_exist_is_answered_with_what_does(
    refuse: Refuse, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refuse(*arguments)


def test_a_folder_that_is_no_workspace_says_how_to_make_one(
    command: Command, tmp_path: Path
) -> None:
    for arguments in (("score", RUN), ("show", "tiny/0/1"), ("explain",), ("simulate", RUN)):
        line = _one_line(command(*arguments, "--workspace", tmp_path))
        assert line.endswith(f"make one with neuron-explainer init {tmp_path}")
    assert files(tmp_path) == {}


def test_a_workspace_in_which_nothing_was_collected_says_so(
    command: Command, tmp_path: Path
) -> None:
    made = workspace.init(tmp_path)
    before = files(made.root)
    assert "none yet" in _one_line(command("explain", "--workspace", made.root))
    assert files(made.root) == before


# ── corpora ───────────────────────────────────────────────────────────────────────────────────

CORPORA: dict[str, tuple[str, bytes, str]] = {
    "an empty one": ("texts.jsonl", b"", "no document of 16 tokens or more"),
    "an empty text": ("texts.txt", b"", "no document of 16 tokens or more"),
    "one shorter than an excerpt": (
        "texts.jsonl",
        b'{"text": "hello"}\n',
        "give it more text, or a smaller --minimum-tokens",
    ),
    "too few excerpts": ("texts.txt", b"The cat sat on the mat. " * 5, "at least 4 are needed"),
    "text that is no UTF-8": (
        "texts.txt",
        b"one\ntw\xff\n",
        "texts.txt, line 2: byte 0xff is no UTF",
    ),
    "JSON that is no UTF-8": (
        "texts.jsonl",
        b'{"text": "one"}\n{"text": "tw\xff"}\n',
        "texts.jsonl, line 2: byte 0xff is no UTF-8",
    ),
    "a line that is no JSON": ("texts.jsonl", b"{oops\n", "texts.jsonl, line 1: no valid JSON"),
    "a line that is no object": (
        "texts.jsonl",
        b'["text"]\n',
        "texts.jsonl, line 1: no JSON object",
    ),
    "an object without text": ("texts.jsonl", b'{"body": "x"}\n', "--text-field names another"),
    "a text that is a number": ("texts.jsonl", b'{"text": 3}\n', "line 1: no such text"),
    "a table that is none": ("texts.parquet", b"PAR1 not", "cannot read"),
    "an archive that is none": ("texts.jsonl.gz", b"not gzip", "cannot read"),
    "an unknown kind": ("texts.docx", b"x", "is of no kind that is read: .txt, .jsonl, .parquet"),
}


def _collect(tiny: Path, corpus: Path, *more: object) -> tuple[object, ...]:
    model = ("--subject", tiny / "model", "--name", "fresh", "--layer", 0)
    return ("collect", *model, "--corpus", corpus, *more)


@pytest.mark.parametrize(("name", "content", "said"), CORPORA.values(), ids=CORPORA.keys())
def test_a_corpus_that_cannot_be_used_is_reported_and_does_not_stand_in_the_way_of_another(
    refuse: Refuse, tiny: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refuse(*_collect(tiny, tmp_path / name))


def test_a_corpus_that_is_not_there_is_reported_before_the_model_is_loaded(
    refuse: Refuse, tmp_path: Path
) -> None:
    line = refuse(
        "collect", "--subject", "no/model", "--layer", 0, "--corpus", tmp_path / "none.txt"
    )
    assert line == f"no corpus at {tmp_path / 'none.txt'}: name a file or a folder that exists"
    assert "no corpus was named" in refuse(
        "collect", "--subject", "x", "--corpus", "", "--layer", 0
    )
    (tmp_path / "empty").mkdir()
    assert "holds no corpus file" in refuse(*_collect(tmp_path, tmp_path / "empty"))


def test_another_corpus_for_a_subject_that_has_one_is_refused(
    refuse: Refuse, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_bytes(b"The cat sat on the mat. " * 100)
    arguments = ("collect", "--subject", tiny / "model", "--name", "tiny", "--layer", 0)
    line = refuse(*arguments, "--corpus", tmp_path / "texts.txt")
    assert "corpus was made with corpus = " in line


# ── models ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the model to damage."""
    shutil.copytree(tiny / "model", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def texts(tiny: Path, tmp_path: Path) -> Path:
    """A small corpus that is good."""
    (tmp_path / "good.jsonl").write_bytes(first_documents(tiny, 20))
    return tmp_path / "good.jsonl"


def _cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def _configured(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = orjson.loads((folder / "config.json").read_bytes())
        (folder / "config.json").write_bytes(orjson.dumps(config | changes))

    return change


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (lambda folder: _cut(folder, "model.safetensors"), "cannot be loaded"),
    "weights that are none": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"oops"),
        "cannot be loaded",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
    "no tokenizer": (_without_tokenizer, "has no tokenizer: put its tokenizer.json there"),
    "a tokenizer cut short": (lambda folder: _cut(folder, "tokenizer.json"), "cannot be loaded"),
    "a configuration that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{oops"),
        "cannot be loaded",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    "weights of fewer layers": (_configured(n_layer=5), "do not belong together"),
    "weights of another width": (_configured(n_embd=64), "cannot be loaded|do not belong together"),
    "another architecture": (_configured(model_type="llama"), "do not belong together"),
    "an unknown architecture": (_configured(model_type="zzz"), "cannot be loaded"),
}


@pytest.mark.parametrize(("damage", "said"), MODELS.values(), ids=MODELS.keys())
def test_a_model_that_cannot_be_loaded_whole_is_not_loaded(
    refuse: Refuse, model: Path, texts: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(model)
    line = refuse("collect", "--subject", model, "--layer", 0, "--corpus", texts)
    assert any(part in line for part in said.split("|")), line
    assert str(model) in line or "architecture" in line


@pytest.mark.parametrize("offline", [False, True], ids=["no network", "HF_HUB_OFFLINE"])
def test_a_hub_id_that_cannot_be_reached_is_one_clear_line(
    refuse: Refuse, texts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("time.sleep", lambda _: None)
    line = refuse("collect", "--subject", "nobody/nothing", "--layer", 0, "--corpus", texts)
    assert line.startswith("no model at nobody/nothing: it is no folder here and the hub")
    assert "name a folder with config.json, model.safetensors and tokenizer.json" in line


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_reported(
    refuse: Refuse, tiny: Path, texts: Path, device: str
) -> None:
    line = refuse(*_collect(tiny, texts, "--device", device))
    assert f"the model cannot go to --device {device}" in line


SITES = {
    "no site": (
        (),
        "no site was asked for: give --layer or --site; there are blocks.0 to blocks.3",
    ),
    "a site that does not exist": (
        ("--site", "blocks.0.mlp.hook_pst"),
        "with attn.hook_pattern, attn.hook_z, hook_at",
    ),
    "a layer out of range": (
        ("--layer", "4"),
        "there is no layer 4: there are blocks.0 to blocks.3",
    ),
    "an excerpt longer than the context": (
        ("--layer", "0", "--excerpt-tokens", "256"),
        "the model takes 256 tokens, BOS included: choose --excerpt-tokens 255",
    ),
    "no way to split": (
        ("--layer", "0", "--split-on", "page"),
        "choose file or blank-line or line",
    ),
    "no such type": (("--layer", "0", "--activations", "int8"), "choose float16 or float32"),
    "a name that is a path": (
        ("--layer", "0", "--name", "../tiny"),
        "cannot name a run or subject",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), SITES.values(), ids=SITES.keys())
def test_a_site_that_does_not_exist_is_answered_with_those_that_do(
    refuse: Refuse, tiny: Path, texts: Path, arguments: tuple[str, ...], said: str
) -> None:
    line = refuse("collect", "--subject", tiny / "model", "--corpus", texts, *arguments)
    assert said in line


def test_an_autoencoder_that_is_none_or_of_another_site_is_refused(
    refuse: Refuse, tiny: Path, texts: Path, tmp_path: Path
) -> None:
    (tmp_path / "sae.pt").write_bytes(b"oops")
    arguments = ("collect", "--subject", tiny / "model", "--name", "fresh", "--corpus", texts)
    line = refuse(*arguments, "--site", "blocks.2.hook_resid_post", "--sae", tmp_path / "sae.pt")
    assert "sae.pt cannot be read as an autoencoder" in line
    good = tiny / "sae" / "blocks.2.hook_resid_post.pt"
    line = refuse(*arguments, "--site", "blocks.2.mlp.hook_post", "--sae", good)
    assert "takes 128 inputs, but blocks.2.mlp.hook_post has 512" in line
    line = refuse(*arguments, "--site", "blocks.9.hook_resid_post", "--sae", good)
    assert "no site blocks.9.hook_resid_post for the autoencoder" in line


# ── run.toml ──────────────────────────────────────────────────────────────────────────────────

TOML = {
    "an unknown key": (
        '[subject]\nmodle = "x"\n',
        "unknown setting 'modle'; did you mean 'model'?",
    ),
    "a wrong type": ("[subject]\nmodel = 3\n", "model is 3; it must be of type str"),
    "bad TOML": ("[subject\n", "is no valid TOML"),
    "no corpus": ('[subject]\nmodel = "gpt2"\n', "no corpus was named"),
}


@pytest.mark.parametrize(("text", "said"), TOML.values(), ids=TOML.keys())
def test_a_run_file_that_is_wrong_is_reported(
    refuse: Refuse, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert said in refuse("run", "--config", tmp_path / "mine.toml")


# ── what is on disk ───────────────────────────────────────────────────────────────────────────


def _refused(command: Command, here: Workspace, *arguments: object) -> str:
    before = files(here.root)
    line = _one_line(command(*arguments, "--workspace", here.root))
    assert files(here.root) == before
    return line


def _flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_a_bit_that_flipped_in_a_shard_is_found_and_its_command_named(
    command: Command, own: Workspace
) -> None:
    path = own.data / "tiny" / SITE / "records-00000-00511.parquet"
    _flip(path)
    line = _refused(command, own, "explain", "--layer", 0, "--run", "fresh")
    assert f"{path} is damaged" in line
    assert "run neuron-explainer collect --subject tiny --layer 0" in line


def test_a_bit_that_flipped_is_found_when_a_neuron_is_shown_from_it(
    command: Command, own: Workspace
) -> None:
    path = own.data / "tiny" / SITE / "records-00000-00511.parquet"
    _flip(path)
    shown = [
        command("show", f"tiny/0/{index}", "--workspace", own.root) for index in range(0, 512, 8)
    ]
    refused = [done for done in shown if done.code]
    assert refused
    for done in refused:
        assert f"{path} is damaged" in _one_line(done)


@pytest.mark.parametrize(
    ("path", "arguments", "rebuild"),
    [
        (
            f"explanations/{RUN}/{SITE}/explanations-00000-00063.parquet",
            ("simulate", f"{RUN}"),
            "explain",
        ),
        (f"scoring/{RUN}/constant/{SITE}/scores-00000-00063.parquet", ("score", RUN), "simulate"),
        ("data/tiny/corpus/vocabulary.parquet", ("show", "tiny/0/1"), "collect"),
    ],
)
@pytest.mark.parametrize("damage", [_flip, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_shard_that_was_changed_emptied_or_deleted_is_named(
    command: Command,
    own: Workspace,
    path: str,
    arguments: tuple[str, ...],
    rebuild: str,
    damage: Callable[[Path], object],
) -> None:
    damage(own.root / path)
    shutil.rmtree(own.scoring / RUN / "shuffled")  # so that simulate has something to do
    if arguments[0] == "score" and not (own.root / path).exists():
        assert command(*arguments, "--workspace", own.root).code == 0  # it is computed again
        assert (own.root / path).exists()
        return
    line = _refused(command, own, *arguments)
    assert Path(path).name in line
    assert f"neuron-explainer {rebuild}" in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"manifest"'])
def test_a_manifest_that_is_none_is_named(command: Command, own: Workspace, content: bytes) -> None:
    path = own.data / "tiny" / SITE / "manifest.json"
    path.write_bytes(content)
    line = _refused(command, own, "show", "tiny/0/1")
    assert str(path.parent) in line
    assert "neuron-explainer collect --subject tiny --layer 0" in line


def test_a_workspace_of_a_newer_version_is_left_to_it(command: Command, own: Workspace) -> None:
    path = own.explanations / RUN / "manifest.json"
    manifest = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(manifest | {"schema_version": 99, "package_version": "9.9"}))
    for arguments in (("explain",), ("simulate", RUN), ("score", RUN), ("show", "tiny/0/1")):
        line = _refused(command, own, *arguments)
        assert "was written by a newer neuron-explainer (9.9); upgrade this one" in line


def test_records_that_were_collected_anew_do_not_mix_with_old_explanations(
    command: Command, own: Workspace
) -> None:
    path = own.data / "tiny" / SITE / "manifest.json"
    manifest = orjson.loads(path.read_bytes())
    manifest["config"]["seed"] = 1
    path.write_bytes(orjson.dumps(manifest))
    line = _refused(command, own, "explain", "--layer", 0, "--neurons", "100")
    assert f"has changed since run '{RUN}' explained it; choose another --run" in line


# ── folders that cannot be written ────────────────────────────────────────────────────────────


@contextmanager
def _mounted(target: Path, *options: str) -> Iterator[None]:
    """A file system at `target`, which needs a privileged process."""
    target.mkdir(exist_ok=True)
    mount = subprocess.run(
        ["mount", *options, str(target)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"cannot mount: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.fixture
def can_mount() -> None:
    """Skips where nothing can be mounted."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting needs a privileged process")


@pytest.mark.usefixtures("can_mount")
def test_a_read_only_workspace_can_be_read_and_says_why_it_is_not_written(
    command: Command, own: Workspace, tmp_path: Path, tiny: Path, texts: Path
) -> None:
    target = tmp_path / "read-only"
    with _mounted(target, "--bind", str(own.root)):
        remount = ["mount", "-o", "remount,bind,ro", str(target)]
        if subprocess.run(remount, capture_output=True, check=False).returncode:
            pytest.skip("cannot mount read-only")
        here = Workspace(target)
        assert command("show", "tiny/0/1", "--workspace", target).code == 0
        for arguments in (
            ("explain", "--run", "fresh"),
            ("explain", "--neurons", "64"),
            ("simulate", f"{RUN}-all", "--simulator", "shuffled"),
            _collect(tiny, texts),
        ):
            assert "read-only file system" in _refused(command, here, *arguments)
        line = _one_line(command("init", target / "data" / "inner"))
        assert "read-only file system; choose another folder" in line


@pytest.mark.usefixtures("can_mount")
def test_a_full_disk_is_reported_and_what_was_finished_is_kept(
    command: Command, tmp_path: Path, tiny: Path, texts: Path
) -> None:
    target = tmp_path / "small-disk"
    with _mounted(target, "-t", "tmpfs", "-o", "size=500k", "tmpfs"):
        workspace.init(target)
        line = _one_line(command(*_collect(tiny, texts), "--workspace", target))
        assert "no space left on device; free space or choose another --workspace" in line
        assert not list(target.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=100m", str(target)], check=True)
        done = command(*_collect(tiny, texts), "--workspace", target)
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        ("explanations/fresh", ("explain", "--run", "fresh")),
        (f"scoring/{RUN}-all/shuffled", ("simulate", f"{RUN}-all", "--simulator", "shuffled")),
        ("data/fresh", ()),
    ],
)
def test_a_file_where_a_folder_should_be_is_reported(
    command: Command,
    own: Workspace,
    tiny: Path,
    texts: Path,
    folder: str,
    arguments: tuple[str, ...],
) -> None:
    (own.root / folder).write_text("in the way")
    line = _refused(command, own, *(arguments or _collect(tiny, texts)))
    assert f"cannot write {own.root / folder}" in line


def test_a_workspace_cannot_be_made_where_nothing_can_be_written(command: Command) -> None:
    line = _one_line(command("init", "/proc/study"))
    assert line.startswith("cannot make a workspace in /proc/study: ")


def test_a_run_that_another_process_writes_is_left_to_it(command: Command, own: Workspace) -> None:
    from neuron_explainer.store import locked

    with locked(own.explanations / RUN):
        line = _refused(command, own, "explain", "--neurons", "64")
    assert "is being written by another process; wait for it or stop it" in line
