"""A real server of the OpenAI protocol on loopback: llama.cpp's, with a small trained model."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

_SERVE = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"stories"}
params.n_parallel = int(sys.argv[2])
params.cache_prompt = params.n_parallel > 1
if sys.argv[3]:
    params.chat_template = sys.argv[3]
params.n_ctx = 2048
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.hostnames = ["127.0.0.1"]
params.port = 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def running(assets: Path, slots: int = 4, template: str = "") -> Iterator[str]:
    """The base URL of a server that stops with the block (or with this process).

    Its context of 2,048 tokens is shared among `slots` requests at once. With one slot equal
    requests get equal replies to the last bit, for nothing is kept of other prompts. A `template`
    turns chats into prompts; by default it is ChatML.
    """
    if find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install xllamacpp runs a real server here")
    model = assets / "stories260K" / "stories260K.gguf"
    if not model.is_file():
        pytest.skip(f"no {model}")
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(model), str(slots), template],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip() + "/v1"
        finally:
            process.kill()
