"""Every command: what it prints, what it writes, and how it ends."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Command, files, in_process
from example_corpus import first_documents

from neuron_explainer import __version__, workspace
from neuron_explainer.config import Settings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.tokens import quoted, unescape
from neuron_explainer.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SITE, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
RUN = "tiny-token-lookup"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture
def small(small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The small workspace as the current directory, to read from."""
    monkeypatch.chdir(small_workspace.root)
    return small_workspace


@pytest.fixture
def copy(small_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the small workspace as the current directory, to write to."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    monkeypatch.chdir(root)
    return Workspace(root)


def _subprocess(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "neuron_explainer", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


# ── help ──────────────────────────────────────────────────────────────────────────────────────


def test_the_page_on_the_command_line_is_what_the_commands_say() -> None:
    script = ROOT / "scripts" / "write_command_line_docs.py"
    written = runpy.run_path(str(script))
    page = written["page"]()
    assert written["FILE"].read_text("utf-8") == page, f"run {script}"
    for name in (
        "init",
        "run",
        "collect",
        "explain",
        "simulate",
        "score",
        "show",
        "import",
        "export",
    ):
        assert f"## neuron-explainer {name}\n" in page


@pytest.mark.parametrize(
    "name",
    [
        "init",
        "run",
        "collect",
        "explain",
        "simulate",
        "score",
        "show",
        "import openai",
        "export openai",
    ],
)
def test_the_help_of_every_command_has_an_example(command: Command, name: str) -> None:
    done = command(*name.split(), "--help")
    assert done.code == 0
    assert f"Example: neuron-explainer {name}" in done.out
    assert done.out == command(*name.split(), "-h").out


@pytest.mark.parametrize("group", [(), ("import",), ("export",)])
def test_a_group_without_a_command_shows_its_help(command: Command, group: tuple[str, ...]) -> None:
    done = command(*group)
    assert done.code == 2
    assert "Commands:" in done.out + done.err


def test_the_version_is_printed(command: Command) -> None:
    done = command("--version")
    assert (done.code, done.out) == (0, f"neuron-explainer {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explan",), "no such command 'explan'. Did you mean 'explain'?"),
        (("import", "opnai"), "no such command 'opnai'. Did you mean 'openai'?"),
        (("explain", "--neuron", "3"), "no such option: --neuron (Possible options: --neurons"),
        (("explain", "--llm"), "option '--llm' requires an argument; see neuron-explainer"),
        (("simulate",), "missing argument 'RUN'; see neuron-explainer simulate --help"),
        (("show", "tiny/0/1", "--top", "x"), "invalid value for '--top': "),
        (("show", "tiny/0/1", "--top", "-1"), "invalid value for '--top': "),
        (("show", "a", "b"), "got unexpected extra argument(s) (b); see neuron-explainer show"),
        (("collect", "--corpus", "x"), "missing option '--subject'"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {said}")
    assert done.err.count("\n") == 1


# ── exit codes of real processes ──────────────────────────────────────────────────────────────


def test_a_process_ends_with_0_when_it_is_done(small_workspace: Workspace) -> None:
    done = _subprocess("score", RUN, cwd=small_workspace.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "token-lookup" in done.stdout


def test_a_process_ends_with_2_and_one_line_when_it_cannot_run(tmp_path: Path) -> None:
    done = _subprocess("score", RUN, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this folder is no workspace")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_closes_the_pipe_is_no_error(small_workspace: Workspace) -> None:
    script = f"'{sys.executable}' -m neuron_explainer show tiny/0/1 --top 20 --json | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=small_workspace.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ('{"neuron":', "")


# ── init and run ──────────────────────────────────────────────────────────────────────────────


def test_init_makes_a_workspace_and_says_what_comes_next(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    done = command("init", folder)
    assert (done.code, done.err) == (0, "")
    assert f"cd {folder} && neuron-explainer run" in done.out
    assert workspace.is_workspace(folder)


def test_run_does_all_stages_as_run_toml_says_and_a_second_time_nothing(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    made = workspace.init(tmp_path / "study")
    corpus = made.data / "texts.jsonl"
    corpus.write_bytes(first_documents(tiny, 60))
    made.run_file.write_text(
        f'[subject]\nmodel = "{tiny / "model"}"\nname = "tiny"\n'
        '[collect]\ncorpus = "data/texts.jsonl"\nlayers = "0"\n'
        '[explain]\nneurons = "0-7"\n[explain.options]\ntable_size = 20\n'
    )
    report = command("run", "--workspace", made.root, "--json").json()
    assert report["run"] == RUN
    rows: Any = report["rows"]
    assert [row["label"] for row in rows] == ["token-lookup", "constant", "shuffled"]
    before = files(made.root)
    assert command("run", "--workspace", made.root, "--json").json() == report
    assert files(made.root) == before


def test_run_reads_its_settings_before_it_makes_anything(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    done = command("run", "--workspace", folder, "--config", tmp_path / "none.toml")
    assert done.code == 2
    assert "no configuration at" in done.err
    assert not folder.exists()


def test_run_leaves_a_folder_that_holds_something_else_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    monkeypatch.chdir(tmp_path)
    done = command("run")
    assert done.code == 2
    assert "this folder is no workspace" in done.err
    assert list(files(tmp_path)) == ["thesis.tex"]


# ── stage by stage ────────────────────────────────────────────────────────────────────────────


def test_collect_with_flags_reports_sites_and_excerpts(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    made = workspace.init(tmp_path)
    (tmp_path / "texts.txt").write_bytes(b"The cat sat on the mat with a hat. " * 60)
    arguments = [
        *("collect", "--subject", tiny / "model", "--name", "mine"),
        *("--corpus", tmp_path / "texts.txt", "--site", "blocks.1.hook_resid_post"),
        *("--excerpt-tokens", 16, "--top", 4, "--random", 3, "--workspace", made.root),
    ]
    report = command(*arguments, "--json").json()
    assert report["subject"] == "mine"
    assert report["sites"] == {"blocks.1.hook_resid_post": 128}
    before = files(made.root)
    done = command(*arguments)
    assert "mine/blocks.1.hook_resid_post: 128 neurons" in done.out
    assert "was complete already" in done.out
    assert files(made.root) == before


def test_collect_takes_an_autoencoder_with_its_site(
    command: Command, small_settings: Settings, tmp_path: Path
) -> None:
    workspace.init(tmp_path)
    (sae,) = small_settings.subject.sae
    assert sae.site is not None
    arguments = [
        *("collect", "--subject", small_settings.subject.model, "--name", "tiny"),
        *("--corpus", small_settings.collect.corpus, "--sae", sae.path, "--workspace", tmp_path),
    ]
    done = command(*arguments)
    assert (done.code, done.err) == (
        2,
        f"error: {sae.path} does not say what it reads: --sae needs --site with it\n",
    )
    report = command(*arguments, "--site", sae.site, "--json").json()
    assert report["sites"] == {f"{sae.site}/{Path(sae.path).stem}": 1024}


def test_explain_simulate_and_score_some_neurons_then_more(
    command: Command, copy: Workspace
) -> None:
    explain = ("explain", "--site", LATENTS, "--table-size", 5, "--run", "five", "--json")
    assert command(*explain, "--neurons", "0-9").json()["explained"] == 10
    assert command(*explain, "--neurons", "5-19").json()["explained"] == 10
    assert command(*explain, "--neurons", "0-19").json()["explained"] == 0
    simulate = ("simulate", "five", "--simulator", "token-lookup", "--json")
    report: Any = command(*simulate).json()
    (made,) = report["simulators"]
    assert (report["run"], made["simulator"], made["simulated"]) == ("five", "token-lookup", 20)
    rows: Any = command("score", "five", "--json").json()["rows"]
    assert rows[0]["site"] == LATENTS
    assert 0 < rows[0]["scores"]["correlation_random_only"]["n"] <= 20


def test_the_score_table_names_sites_simulators_and_nulls(
    command: Command, small: Workspace
) -> None:
    done = command("score", RUN)
    assert (done.code, done.err) == (0, "")
    for expected in (
        RUN,
        SITE,
        LATENTS,
        "constant",
        "shuffled",
        "whole token table",
        "random only",
    ):
        assert expected in done.out


def test_latents_that_never_fire_are_listed_by_cause_and_are_no_failure(
    command: Command, small_settings: Settings, tiny: Path, tmp_path: Path
) -> None:
    workspace.init(tmp_path)
    (tmp_path / "few.jsonl").write_bytes(first_documents(tiny, 8))
    (sae,) = small_settings.subject.sae
    here = ("--workspace", tmp_path)
    command(
        *(
            "collect",
            "--subject",
            tiny / "model",
            "--name",
            "tiny",
            "--corpus",
            tmp_path / "few.jsonl",
        ),
        *("--site", sae.site, "--sae", sae.path, *here),
    )
    done = command("explain", "--table-size", 3, *here)
    assert done.code == 0
    assert "1,024 neurons explained" in done.out
    assert "cause never-active" in done.err
    report = command("explain", "--table-size", 3, "--json", *here).json()
    assert report["explained"] == 0
    causes: Any = report["failures"]
    assert 0 < causes["never-active"] < 1024


def test_failures_that_are_no_property_of_the_neuron_end_with_1(
    command: Command, copy: Workspace
) -> None:
    table = copy.data / "tiny" / SITE
    manifest = (table / "manifest.json").read_text()
    (table / "manifest.json").write_text(manifest.replace('"tokens-00000', '"absent-00000'))
    shutil.move(table / "tokens-00000-00511.parquet", table / "absent-00000-00511.parquet")
    done = command("explain", "--layer", 0, "--neurons", "0-3", "--run", "tableless")
    assert done.code == 1
    assert "without result: 4 neurons, cause no-token-table" in done.err


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    command: Command, small: Workspace
) -> None:
    before = files(small.root)
    explain = ("explain", "--layer", 0, "--table-size", 5, "--dry-run")
    plans: Any = command(*explain, "--run", "five", "--neurons", "0-9", "--json").json()["plans"]
    (report,) = plans
    assert (report["run"], report[SITE]) == ("five", 10)
    assert "run: five" in command(*explain, "--run", "five").out
    again = ("explain", "--layer", 0, "--neurons", "60-69", "--dry-run", "--json")
    plans = command(*again).json()["plans"]
    assert plans[0][SITE] == 6
    plans = command("simulate", RUN, "--dry-run", "--json").json()["plans"]
    assert [plan["simulator"] for plan in plans] == ["token-lookup", "constant", "shuffled"]
    assert files(small.root) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--explainer", "nope"), "unknown explainer 'nope'"),
        (("--explainer", "token-activaton"), "did you mean 'token-activation'?"),
        (("--explainer", "token-space"), "token-space needs a language model: --llm openai/MODEL"),
        (("--option", "table_sise=3"), "did you mean 'table_size'?"),
        (("--no-such-option",), "no such option: --no-such-option"),
    ],
)
def test_a_dry_run_refuses_what_the_command_would(
    command: Command, small: Workspace, arguments: tuple[str, ...], said: str
) -> None:
    done = command("explain", "--dry-run", "--run", "new", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


# ── show ──────────────────────────────────────────────────────────────────────────────────────


def test_show_tells_statistics_explanations_scores_and_records(
    command: Command, small: Workspace
) -> None:
    done = command("show", f"tiny/{SITE}/12", "--plain", "--random", 2, "--quantile")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"tiny/{SITE}/12\nactive on ")
    for expected in (RUN, "Fires on “", "top records", "random records", "quantile records"):
        assert expected in done.out
    assert " 10]" in done.out  # the loudest token of the first record


def test_a_layer_and_an_index_name_an_mlp_neuron(command: Command, small: Workspace) -> None:
    assert command("show", "tiny/0/12").out == command("show", f"tiny/{SITE}/12").out


def test_show_without_a_terminal_is_plain(command: Command, small: Workspace) -> None:
    shown = command("show", "tiny/0/12")
    assert shown.out == command("show", "tiny/0/12", "--plain").out
    assert "\x1b" not in shown.out


def test_show_in_colour_has_the_same_words(
    command: Command, small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = command("show", "tiny/0/12")
    assert "\x1b[" in coloured.out
    assert "top records" in coloured.out
    assert " 10]" not in coloured.out
    assert "\x1b[48" not in command("show", "tiny/0/12", "--plain").out


def test_show_chooses_how_many_records(command: Command, small: Workspace) -> None:
    none = command("show", "tiny/0/12", "--top", 0).out
    one, two = (command("show", "tiny/0/12", "--top", number).out for number in (1, 2))
    assert "top records" not in none
    assert len(none) < len(one) < len(two)


def test_show_as_json_holds_all_records_and_scores(command: Command, small: Workspace) -> None:
    made: Any = command("show", f"tiny/{LATENTS}/1", "--json").json()
    assert made["neuron"] == f"tiny/{LATENTS}/1"
    assert {record["kind"] for record in made["records"]} == {"top", "random", "quantile"}
    for record in made["records"]:
        assert len(record["tokens"]) == len(record["activations"]) == len(record["scored"])
    mine = next(found for found in made["explanations"] if found["run"] == RUN)
    assert set(mine["scores"]) == {"token-lookup", "constant", "shuffled"}
    assert "nan" not in command("show", f"tiny/{LATENTS}/1", "--json").out.lower().split('"')


def test_show_names_the_tokens_that_a_neuron_promotes_and_suppresses(
    command: Command, small: Workspace
) -> None:
    neuron = RecordSet(small.data, "tiny", SITE).neuron(12)
    assert neuron.promoted is not None
    assert neuron.suppressed is not None
    # lines are folded at spaces, those in tokens included
    shown = "".join(command("show", "tiny/0/12").out.split())
    made: Any = command("show", "tiny/0/12", "--json").json()
    for verb, key, pairs in (
        ("promotes", "promoted", neuron.promoted),
        ("suppresses", "suppressed", neuron.suppressed),
    ):
        listed = "".join(f"{quoted(token)}{effect:+.2f}" for token, effect in pairs)
        assert verb + "".join(listed.split()) in shown
        assert [(unescape(row["token"]), row["effect"]) for row in made[key]] == list(pairs)


def test_show_is_silent_on_effects_that_were_not_collected(
    command: Command, copy: Workspace
) -> None:
    folder = RecordSet(copy.data, "tiny", SITE).folder
    shards = folder.manifest()["shards"]
    kept = {file: entry for file, entry in shards.items() if not file.startswith("logit_effects")}
    assert len(kept) == len(shards) - 1
    folder.update({"shards": kept})
    done = command("show", "tiny/0/12")
    assert (done.code, "promotes" in done.out, "suppresses" in done.out) == (0, False, False)
    made: Any = command("show", "tiny/0/12", "--json").json()
    assert (made["promoted"], made["suppressed"]) == (None, None)


def test_a_neuron_that_nobody_explained_says_so(command: Command, small: Workspace) -> None:
    assert "not explained yet: neuron-explainer explain" in command("show", "tiny/0/500").out


# ── published formats ─────────────────────────────────────────────────────────────────────────


def test_a_run_goes_out_and_comes_back_as_openais_files(
    command: Command, copy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    command("explain", "--layer", 0, "--neurons", "0-9", "--run", "ten")
    command("simulate", "ten", "--simulator", "token-lookup")
    command("score", "ten")
    folder = tmp_path / "published"
    export: Any = command("export", "openai", "ten", "--to", folder, "--json").json()
    assert export["written"] == len(files(folder)) > 0
    (kind, *_) = sorted({path.parents[1] for path in folder.rglob("*.json")})
    report: Any = command("import", "openai", kind, "--name", "back", "--json").json()
    assert report["name"] == "back"
    assert report["imported"] > 0
    assert command("show", "back/0/1").code == 0
