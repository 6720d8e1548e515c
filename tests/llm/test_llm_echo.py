"""Echoed prompts with their probabilities, from the one CPU server that gives them.

llama-cpp-python builds from source in some minutes (`make echo-server`); without it these tests
are skipped.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from reading_parts import simulated, stimuli

from neuron_explainer.errors import LLMError
from neuron_explainer.llm.base import BackendSettings, Message, Request, Response
from neuron_explainer.llm.compose import LLMSettings, open_llm
from neuron_explainer.llm.local import Local

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None,
        reason="llama-cpp-python is not installed: make echo-server",
    ),
]

PROMPT = """Once upon a time
<start>
 Lily\tunknown
 dog\tunknown
<end>
"""


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = assets / "stories260K" / "stories260K.gguf"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "512"]
    command += ["--logits_all", "true", "--n_threads", "1", "--port", str(port)]
    output = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _await_server(f"http://127.0.0.1:{port}/v1", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _await_server(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with urlopen(f"{url}/models", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail("llama_cpp.server did not start")


def served(url: str, request: Request) -> Response:
    async def run() -> Response:
        llm = open_llm("openai/stories", LLMSettings(BackendSettings(url)))
        try:
            return await llm.complete(request)
        finally:
            await llm.close()

    return asyncio.run(run())


@pytest.mark.parametrize("prompt", [PROMPT, "A caf\u00e9 \u2603 opened.\n"])
def test_an_echoed_prompt_has_the_probabilities_of_the_model(
    server: str, assets: Path, prompt: str
) -> None:
    request = Request(prompt, 1, prompt_logprobs=10)
    theirs = served(server, request).prompt
    local = Local(str(assets / "stories260K" / "hf"), BackendSettings())
    mine = asyncio.run(local.complete(request)).prompt
    assert theirs is not None
    assert mine is not None
    compared = 0
    offsets = {at: place for place, at in enumerate(starts(mine.tokens, mine.offsets))}
    for place, at in enumerate(starts(theirs.tokens, theirs.offsets)):
        token, other = theirs.tokens[place], offsets.get(at)
        if not token or other is None or mine.tokens[other] != token or not at:
            continue
        assert theirs.logprobs[place] == pytest.approx(mine.logprobs[other], abs=0.02)
        compared += 1
    assert compared >= len(prompt.split())


def test_all_at_once_predicts_over_a_server_what_it_predicts_in_process(
    server: str, assets: Path
) -> None:
    sequences = [
        (b" Once", b" upon", b" a", b"\t", b" 10", b"<start>", b"\xc3"),
        (b" Lily", b"\n", b" went", b" to"),
    ]
    local = Local(str(assets / "stories260K" / "hf"), BackendSettings())
    mine = simulated(local, stimuli(sequences), "numbers such as 10")
    llm = open_llm("openai/stories", LLMSettings(BackendSettings(server)))
    # enough for every number; of texts that two tokens have, the server names the unlikelier one,
    # and those, single bytes, are the last in the vocabulary's order of likelihood
    theirs = simulated(llm, stimuli(sequences), "numbers such as 10", alternatives=300)
    for some, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(some, other, atol=0.02)


def starts(tokens: Sequence[str], offsets: Sequence[int] | None) -> Sequence[int]:
    """Where each token begins in the text."""
    if offsets is not None:
        return offsets
    return list(accumulate(map(len, tokens), initial=0))[:-1]


def test_a_server_that_refuses_schemas_is_named_with_what_would_work(server: str) -> None:
    request = Request((Message("user", "hi"),), 5, json_schema={"type": "object"})
    with pytest.raises(LLMError, match=r"127\.0\.0\.1.* gives no json_schema; use .*schema=false"):
        served(server, request)
