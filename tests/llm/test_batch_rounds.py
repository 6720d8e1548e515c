"""Batch files on the command line: requests out, replies in, as many rounds as it takes."""

import asyncio
import hashlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import live_server
import orjson
import pytest
from batch_server import BatchServer, batches
from commands import Command, Done, files, in_process

from neuron_explainer.config import ExplainSettings, ModelSettings
from neuron_explainer.explain.stage import explain
from neuron_explainer.llm import session
from neuron_explainer.llm.base import BackendSettings
from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
LLM = ("--llm", "openai/clerk")
SIMULATE = ("simulate", "few", "--simulator", "numbers", "--option", "logprobs=false", *LLM)
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]  # a line → a line of replies


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture
def here(
    small_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> Workspace:
    """A workspace, as the current directory, in which three neurons are explained."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    monkeypatch.chdir(root)
    assert command("explain", "--layer", 0, "--neurons", "0-2", "--run", "few").code == 0
    return Workspace(root)


def reply(line: dict[str, Any], text: str) -> dict[str, Any]:
    """A line that answers another one."""
    message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    body = {"choices": [message], "usage": usage, "model": "clerk"}
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}}


def clerk(line: dict[str, Any]) -> dict[str, Any]:
    """Puts an activation to the first row of each sequence; every third time to one too far.

    What it says depends on the question alone. Asked again, it finds a row.
    """
    question = line["body"]["messages"][-1]["content"]
    number = hashlib.sha256(question.encode()).digest()[0]
    row = 999 if number % 3 == 0 and "cannot be used" not in question else 0
    return reply(line, f'{{"activations": [{{"index": {row}, "activation": {number % 10}}}]}}')


def worked_off(folder: Path, answer: Answer) -> int:
    """Write the replies beside the requests, as `vllm run-batch` does; how many were asked for."""
    count = 0
    for path in sorted(folder.glob("requests-*.jsonl")):
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        answers = [found for line in lines if (found := answer(line)) is not None]
        out = path.with_name(path.name.replace("requests", "replies"))
        out.write_bytes(b"".join(orjson.dumps(found) + b"\n" for found in answers))
        count += len(lines)
    return count


def rounds(command: Command, stage: tuple[str, ...], answer: Answer) -> tuple[list[int], Done]:
    """Go round until nothing is left to ask, by the commands that are printed."""
    asked: list[int] = []
    done = command(*stage, "--write-batch", "round-1")
    while "written: " in done.out:
        assert done.code == 0, done.err
        assert len(asked) < 6
        asked.append(worked_off(Path(f"round-{len(asked) + 1}"), answer))
        (then,) = [line for line in done.out.splitlines() if line.startswith("then: ")]
        done = command(*shlex.split(then.removeprefix("then: "))[1:])
    return asked, done


def tables(folder: Path) -> dict[str, bytes]:
    """The shards of a run."""
    return {name: content for name, content in files(folder).items() if name.endswith("parquet")}


def test_a_first_round_only_writes_requests_and_what_comes_next(
    command: Command, here: Workspace
) -> None:
    before = files(here.scoring) | files(here.explanations)
    done = command(*SIMULATE, "--write-batch", "out/first")
    assert done.code == 0
    assert files(here.scoring) | files(here.explanations) == before
    content = Path("out/first/requests-0001.jsonl").read_bytes()
    lines = [orjson.loads(line) for line in content.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines) > 20
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert {line["body"]["model"] for line in lines} == {"clerk"}
    assert f"written: {len(lines)} requests in 1 files in out/first" in done.out
    assert "-i out/first/requests-0001.jsonl -o out/first/replies-0001.jsonl" in done.out
    again = shlex.join([*map(str, SIMULATE), "--read-batch", "out/first"])
    assert f"then: neuron-explainer {again} --write-batch out/first-2\n" in done.out
    # the first round has not settled the configuration of the folder
    other = command(*SIMULATE, "--option", "few_shot=1", "--write-batch", "other", "--json")
    report: Any = other.json()
    assert report["simulators"][0]["waiting"] == 3
    refused = command(*SIMULATE, "--write-batch", "out/first")
    assert refused.code == 2
    assert "out/first/requests-0001.jsonl is there already, from another round" in refused.err


def test_rounds_come_to_what_answers_at_once_come_to(command: Command, here: Workspace) -> None:
    done = command(*SIMULATE, "--as", "steady", "--write-batch", "all")
    assert done.code == 0
    count = worked_off(Path("all"), clerk)
    slow = {"left": count // 2}

    def at_first_half(line: dict[str, Any]) -> dict[str, Any] | None:
        slow["left"] -= 1
        if slow["left"] == 0:  # not worked off, and so asked again
            error = {"code": "batch_expired", "message": "too late"}
            return {"custom_id": line["custom_id"], "response": None, "error": error}
        return clerk(line) if slow["left"] > 0 or slow["left"] < -count else None

    asked, last = rounds(command, SIMULATE, at_first_half)
    assert last.code == 0, last.err
    assert "no request is left to write" in last.out
    assert asked[0] == count
    assert asked[1] >= count // 2  # what was not answered, and repairs of what was
    assert len(asked) >= 3
    numbers = Run(here, "few").simulations("numbers")
    assert numbers.complete
    assert numbers.read_all(f"{SITE}/simulations").num_rows > 0
    # the cache has every answer now, so the other folder is done without a file
    at_once = command(*SIMULATE, "--as", "steady", "--read-batch", "all")
    assert at_once.code == 0
    assert tables(numbers.path) == tables(here.scoring / "few" / "steady")
    assert "3 neurons simulated now" in at_once.out
    assert not list(Path().glob(f"round-{len(asked) + 1}/*"))


def test_neurons_without_an_answer_wait_and_are_no_failure(
    command: Command, here: Workspace
) -> None:
    command(*SIMULATE, "--write-batch", "round-1")
    worked_off(Path("round-1"), lambda line: None if line["custom_id"] < "4" else clerk(line))
    report: Any = command(*SIMULATE, "--read-batch", "round-1", "--json").json()
    (made,) = report["simulators"]
    assert (made["simulated"], made["waiting"]) == (0, 3)
    assert made["batch"]["unanswered"] > 0
    assert not (here.scoring / "few" / "numbers").exists()
    done = command(*SIMULATE, "--read-batch", "round-1")
    assert "for 3 neurons in shards that are left for a next round" in done.out


def test_a_request_that_is_answered_with_an_error_of_its_own_fails_its_neuron(
    command: Command, here: Workspace
) -> None:
    chosen: set[str] = set()

    def refusing(line: dict[str, Any]) -> dict[str, Any]:
        if chosen and line["custom_id"] not in chosen:
            return clerk(line)
        chosen.add(line["custom_id"])
        error = {"error": {"message": "content_policy violation", "code": None}}
        return {
            "custom_id": line["custom_id"],
            "response": {"status_code": 400, "body": error},
            "error": None,
        }

    _, done = rounds(command, SIMULATE, refusing)
    assert done.code == 1
    assert "without result: 1 neurons, cause refused" in done.err


def test_a_reply_of_no_use_is_not_asked_for_again_in_later_rounds(
    command: Command, here: Workspace
) -> None:
    unusable: set[str] = set()

    def rambling(line: dict[str, Any]) -> dict[str, Any]:
        if not unusable:
            unusable.add(line["custom_id"])
            return reply(line, "It fires on the first token.")
        assert line["custom_id"] not in unusable
        return clerk(line)

    asked, done = rounds(command, SIMULATE, rambling)
    assert len(asked) == 2
    assert done.code == 1
    assert "without result: 1 neurons, cause malformed-reply" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--llm", "local/x"), "batch files hold requests to a server, not to 'local/x'"),
        ((), "batch files need the model that they are for"),
        ((*LLM, "--max-tokens", "9"), "batch files send nothing"),
        ((*LLM, "--read-batch", "nowhere"), "no replies in nowhere"),
    ],
)
def test_what_batch_files_cannot_do_is_said_and_leaves_nothing(
    command: Command, here: Workspace, arguments: tuple[str, ...], said: str
) -> None:
    before = files(here.root)
    done = command(
        "simulate", "few", "--simulator", "numbers", *arguments, "--write-batch", "round-1"
    )
    assert done.code == 2
    assert said in done.err
    assert {name for name in files(here.root) if ".cache" not in name} == {
        name for name in before if ".cache" not in name
    }


def test_one_simulator_fills_a_round(command: Command, here: Workspace) -> None:
    done = command("simulate", "few", *LLM, "--write-batch", "round-1")
    assert (done.code, done.out) == (2, "")
    assert "name it by --simulator" in done.err


def test_run_takes_no_batch_files(command: Command, here: Workspace) -> None:
    example = (here.root / "data" / "tiny").resolve()
    here.run_file.write_text(
        f'[subject]\nmodel = "{example}"\n[explain.model]\nwrite_batch = "round-1"\n'
    )
    done = command("run")
    assert done.code == 2
    assert "use them with explain and simulate, not run" in done.err


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    """A real server."""
    with live_server.running(assets) as url:
        yield url


EXPLAIN = ("explain", "--layer", 0, "--neurons", "0-5", "--explainer", "token-space")


@pytest.mark.enable_socket
def test_a_real_server_works_files_off_to_the_same_explanations_as_live(
    command: Command, here: Workspace, server: str
) -> None:
    api = BatchServer(server)

    def served(folder: Path) -> None:
        api.files["in"] = (folder / "requests-0001.jsonl").read_bytes()
        batch = {"input_file_id": "in", "endpoint": "/v1/chat/completions"}
        asyncio.run(api._worked_off(batch))
        (folder / "replies.jsonl").write_bytes(api.files[batch["output_file_id"]])

    model = ("--llm", "openai/stories")
    options = ("--option", "max_tokens=8", "--option", "few_shot=0", "--option", "tokens=4")
    named = (*EXPLAIN, *options, *model, "--run", "by-files")
    assert command(*named, "--write-batch", "round-1").code == 0
    served(Path("round-1"))
    filed = command(*named, "--read-batch", "round-1")
    shutil.rmtree(".cache")
    live = command(*EXPLAIN, *options, *model, "--run", "live", "--base-url", server)
    assert filed.code == live.code
    assert tables(here.explanations / "by-files") == tables(here.explanations / "live")


@pytest.mark.enable_socket
def test_the_batch_api_gets_all_neurons_at_once(
    here: Workspace, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BackendSettings", partial(BackendSettings, gather=0.1, poll=0.01))

    async def run() -> list[int]:
        async with batches(server) as api:
            model = ModelSettings("batch/stories", api.url)
            options = {"max_tokens": 2, "few_shot": 0}
            settings = ExplainSettings("token-space", "bulk", "0-79", options, model)
            await explain(here, "tiny", [SITE], settings)
            return [
                len(api.files[batch["input_file_id"]].splitlines())
                for batch in api.batches.values()
            ]

    (size,) = asyncio.run(run())
    assert size > 64  # more than a server is asked for at once
