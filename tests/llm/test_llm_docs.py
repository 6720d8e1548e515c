"""What docs/llm.md shows works as it stands."""

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm import prices
from neuron_explainer.llm.base import Message, Request
from neuron_explainer.llm.compose import open_llm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "llm.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_the_script_answers(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(block("json"))

    async def ask(text: str, sample: int = 0) -> str:
        request = Request((Message("user", text),), 9, sample=sample)
        return (await open_llm(f"scripted/{script}").complete(request)).text

    assert asyncio.run(ask("the whole text")) == "an answer"
    assert asyncio.run(ask("a regular old expression", 1)) == "second sample"
    assert asyncio.run(ask("level?")) == "7"
    with pytest.raises(NeuronFailure):
        asyncio.run(ask("no"))


def test_the_price_table_is_read(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(block("toml"))
    shipped, both = prices.load(), prices.load(own)
    assert both == shipped  # the example repeats what is shipped
    assert tomllib.loads(own.read_text())["batch"] == shipped.batch


def test_every_backend_and_cause_is_named() -> None:
    page = PAGE.read_text("utf-8")
    for name in ("openai/", "batch/", "local/", "scripted/"):
        assert f"`{name}" in page
    package = Path(prices.__file__).parent
    raised = "".join(path.read_text("utf-8") for path in package.glob("*.py"))
    causes = set(re.findall(r'(?:NeuronFailure|Unusable|Transient)\(\s*"([a-z-]+)"', raised))
    documented = set(re.findall(r"`([a-z-]+)`", page))
    assert causes <= documented
