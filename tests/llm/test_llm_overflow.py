"""Prompts that a model refuses as too long are asked again, shorter."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import live_server
import pytest

from neuron_explainer.config import ExplainSettings, ModelSettings
from neuron_explainer.conversation import estimated_tokens
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.stage import explain
from neuron_explainer.llm.base import LLM, Capabilities, Request, Response
from neuron_explainer.llm.overflow import Overflow, context_told, fitted_anew
from neuron_explainer.workspace import Workspace

PROMPT = "a prompt of " * 100


@pytest.mark.parametrize(
    ("detail", "limit", "asked"),
    [
        (
            "This model's maximum context length is 2048 tokens, however you requested 2801 tokens "
            "(2800 in your prompt; 1 for the completion). Please reduce your prompt.",
            2048,
            2801,
        ),
        (
            '{"error":{"code":400,"message":"request (579 tokens) exceeds the available context '
            'size (512 tokens), try increasing it","n_prompt_tokens":579,"n_ctx":512}}',
            512,
            579,
        ),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 5000 "
            "tokens (4800 in the messages, 200 in the completion).",
            4096,
            5000,
        ),
    ],
)
def test_a_refusal_tells_the_context(detail: str, limit: int, asked: int) -> None:
    estimated = estimated_tokens(PROMPT) + 10
    assert context_told(detail, PROMPT, 10) == int(limit * min(1.0, estimated / asked))


@pytest.mark.parametrize(
    "detail", ["too long", "the context length is 500", "error 400: 77 tokens"]
)
def test_a_refusal_without_both_numbers_tells_nothing(detail: str) -> None:
    assert context_told(detail, PROMPT, 10) is None


@dataclass(frozen=True)
class Refusing:
    """A model that refuses every prompt, and tells another context each time."""

    model = "refusing"
    told: tuple[int | None, ...]
    asked: list[int | None] = field(default_factory=list)

    async def capabilities(self) -> Capabilities:
        return Capabilities(True, True)

    async def complete(self, request: Request) -> Response:
        del request
        raise Overflow("too long", self.told[len(self.asked) - 1])

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Asker:
    """Asks once, and notes which context it was told."""

    llm: LLM
    contexts: list[int | None] = field(default_factory=list)

    async def ask(self) -> None:
        self.contexts.append((await self.llm.capabilities()).context)
        await self.llm.complete(Request(PROMPT, 1))


@pytest.mark.parametrize(
    ("told", "contexts"),
    [((None,), [None]), ((500, 400, 400), [None, 500, 400]), ((500, 600), [None, 500])],
)
def test_one_asks_again_as_long_as_the_context_told_is_smaller(
    told: tuple[int | None, ...], contexts: list[int | None]
) -> None:
    asker = Asker(Refusing(told))
    model = asker.llm
    assert isinstance(model, Refusing)

    async def work(asking: Asker) -> None:
        model.asked.append(None)
        await replace(asking, contexts=asker.contexts).ask()

    with pytest.raises(NeuronFailure, match="too long"):
        asyncio.run(fitted_anew(asker, work))
    assert asker.contexts == contexts


@pytest.fixture(scope="module")
def url(assets: Path) -> Iterator[str]:
    with live_server.running(assets, slots=1) as found:
        yield found


@pytest.mark.enable_socket
@pytest.mark.parametrize("explainer", ["token-activation", "highlight", "token-space"])
def test_explainers_fit_a_vocabulary_that_their_estimate_is_not_made_for(
    url: str, small_workspace: Workspace, tmp_path: Path, explainer: str
) -> None:
    here = Workspace(Path(shutil.copytree(small_workspace.root, tmp_path / "workspace")))
    site = "blocks.0.mlp.hook_post"
    model = ModelSettings(llm="openai/stories", base_url=url)
    options = {"max_tokens": 30}
    settings = ExplainSettings(explainer, f"live-{explainer}", "0-3", options, model)
    done = asyncio.run(explain(here, "tiny", [site], settings))
    assert set(done.failures) <= {"cut-off", "empty-reply", "repeats-prompt"}
