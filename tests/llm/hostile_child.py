"""One simulate stage whose language model may be hostile; run as a script, a process to kill."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from neuron_explainer.config import ModelSettings, SimulateSettings
from neuron_explainer.llm import session
from neuron_explainer.llm.compose import open_llm
from neuron_explainer.runs import Run
from neuron_explainer.simulate.stage import Simulated, simulate
from neuron_explainer.workspace import Workspace

RUN = "few-words"
CONCURRENCY = 8


async def no_sleep(_: float) -> None:
    """Nobody waits between tries."""


async def simulated(
    here: Workspace,
    url: str,
    label: str,
    max_tokens: int | None = None,
    retry: tuple[str, ...] = (),
) -> Simulated:
    """The stage: for each token of the valid split one request for log probabilities."""
    model = ModelSettings("openai/stories", url, max_tokens=max_tokens, concurrency=CONCURRENCY)
    settings = SimulateSettings(split="valid", model=model, retry=retry)
    with patch.object(session, "open_llm", partial(open_llm, sleep=no_sleep)):
        return await simulate(
            Run(here, RUN), "one-at-a-time", settings, options={"few_shot": 0}, label=label
        )


if __name__ == "__main__":
    asyncio.run(simulated(Workspace(Path(sys.argv[1])), sys.argv[2], sys.argv[3]))
