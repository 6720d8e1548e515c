"""A Hugging Face causal language model in this process: exact, deterministic, no server.

One request at a time, in a thread so that the event loop stays free. Chats need a chat template;
plain prompts get the special tokens that the tokenizer puts in front.
"""

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import (
    BackendSettings,
    Capabilities,
    Choice,
    Logprobs,
    Masses,
    Reading,
    Request,
    Response,
    Usage,
    needs,
    require,
)
from neuron_explainer.llm.failures import brief
from neuron_explainer.llm.local_prompts import Tokens
from neuron_explainer.llm.local_reading import LocalReader
from neuron_explainer.llm.logprobs import merged
from neuron_explainer.llm.overflow import Overflow, fitted_context
from neuron_explainer.llm.token_text import texts_and_offsets
from neuron_explainer.subjects.tokenizer import HuggingFaceTokenizer

Result = TypeVar("Result")

_ROWS = 512  # positions whose probabilities are computed together
_DIGEST_BYTES = 1 << 16  # of each end of a file
_MOST_ALTERNATIVES = 1000


@dataclass(frozen=True, slots=True)
class _Step:
    """A token as it was written."""

    token: int
    logprob: float
    top: dict[str, float]


class Local:
    """The backend `local/PATH-or-hub-id`."""

    def __init__(self, model: str, settings: BackendSettings) -> None:
        self.network, self.tokenizer = _load(model, settings)
        self.device = torch.device(settings.device)
        self.vocabulary = HuggingFaceTokenizer(
            self.tokenizer, int(self.network.get_output_embeddings().weight.shape[0])
        ).vocabulary
        kind = str(self.network.dtype).removeprefix("torch.")
        self.model = f"local/{Path(model).name}-{_digest(model, self.network)}-{kind}"
        parameters = inspect.signature(self.network.forward).parameters
        self._can_omit_logits = "logits_to_keep" in parameters
        self._source = model
        self._most = settings.context
        self._lock = asyncio.Lock()

    async def capabilities(self) -> Capabilities:
        """Everything but enforced schemas."""
        return Capabilities(
            chat=bool(self.tokenizer.chat_template),
            completions=True,
            top_logprobs=_MOST_ALTERNATIVES,
            prompt_logprobs=True,
            n=True,
            context=self.context,
            reading=True,
        )

    @property
    def context(self) -> int | None:
        """How many tokens the model can read."""
        found = getattr(self.network.config, "max_position_embeddings", None)
        told = [int(length) for length in (found, self._most) if length]
        return min(told, default=None)

    async def complete(self, request: Request) -> Response:
        """The answer; cancelling stops it at the next token."""
        require(await self.capabilities(), needs(request), self._source)
        return await self._in_thread(partial(self._answer, request))

    async def read(self, reading: Reading) -> Masses:
        """The masses; cancelling stops it at the next batch."""
        return await self._in_thread(partial(self._reader.read, reading))

    async def _in_thread(self, work: Callable[[threading.Event], Result]) -> Result:
        """The result of `work`, which ends soon after the event is set."""
        stop = threading.Event()
        async with self._lock:
            task = asyncio.create_task(asyncio.to_thread(work, stop))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait([task])  # the thread uses the model: it must not be left behind
                task.exception()  # looked at: nobody else will
                raise

    @cached_property
    def _reader(self) -> LocalReader:
        return LocalReader(self.network, Tokens(self.tokenizer, self.vocabulary, self.context))

    async def close(self) -> None:
        """Nothing is open."""

    def encode(self, request: Request) -> tuple[str, list[int]]:
        """The prompt as text and as token ids."""
        prompt = request.prompt
        if isinstance(prompt, str):
            return prompt, list(self.tokenizer(prompt).input_ids)
        chat = [{"role": message.role, "content": message.content} for message in prompt]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        # a template that writes its own special tokens must not get them twice
        bos = self.tokenizer.bos_token
        special = not (bos and text.startswith(bos))
        return text, list(self.tokenizer(text, add_special_tokens=special).input_ids)

    def _answer(self, request: Request, stop: threading.Event) -> Response:
        text, ids = self.encode(request)
        asked = len(ids) + request.max_tokens
        if self.context is not None and asked > self.context:
            raise Overflow(
                f"the prompt's {len(ids)} tokens and {request.max_tokens} more do not fit into the "
                f"{self.context} that {self._source} reads",
                fitted_context(self.context, asked, request.prompt, request.max_tokens),
            )
        with torch.inference_mode():
            everywhere = request.prompt_logprobs is not None
            read = self._read(ids, everywhere=everywhere)
            prompt = None
            if request.prompt_logprobs is not None:
                prompt = self._prompt_columns(text, ids, read.logits[0], request.prompt_logprobs)
            generator = torch.Generator(self.device)
            if request.sampling_seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.sampling_seed)
            written = partial(self._choice, request, ids, read, prompt, generator, stop)
            parts = [written() for _ in range(request.n)]
        usage = Usage(len(ids), 0, sum(count for _, count in parts), 1)
        return Response(tuple(choice for choice, _ in parts), usage, self.model)

    def _read(self, ids: list[int], *, everywhere: bool) -> Any:
        """The prompt's forward pass, with logits at all its positions or only at the last."""
        whole = torch.tensor([ids], device=self.device)
        if everywhere or not self._can_omit_logits:
            return self.network(input_ids=whole, use_cache=True)
        return self.network(input_ids=whole, use_cache=True, logits_to_keep=1)

    def _prompt_columns(self, text: str, ids: list[int], logits: Tensor, top: int) -> Logprobs:
        texts, offsets = texts_and_offsets([self.vocabulary[index] for index in ids], text)
        values: list[float | None] = [None]
        tops: list[dict[str, float] | None] = [None]
        for start in range(0, len(ids) - 1, _ROWS):
            targets = ids[start + 1 : start + 1 + _ROWS]
            rows = torch.log_softmax(logits[start : start + len(targets)].float(), -1)
            for row, token in zip(rows, targets, strict=True):
                values.append(float(row[token]))
                tops.append(self._alternatives(row, top, token))
        return Logprobs(texts, values, tops, offsets)

    def _alternatives(self, row: Tensor, number: int, token: int) -> dict[str, float]:
        """The likeliest texts after a prefix, and the one that stands there; row: (vocabulary,)."""
        best = torch.topk(row, min(number, row.shape[0]))
        pairs = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        pairs.setdefault(token, float(row[token]))
        return merged((self._text(index), value) for index, value in pairs.items())

    def _text(self, token: int) -> str:
        return self.vocabulary[token].decode(errors="replace")

    def _choice(
        self,
        request: Request,
        ids: list[int],
        read: Any,
        prompt: Logprobs | None,
        generator: torch.Generator,
        stop: threading.Event,
    ) -> tuple[Choice, int]:
        """One answer and how many tokens it took."""
        steps: list[_Step] = []
        text, reason, count = "", "length", 0
        for step in self._steps(request, ids, read, generator):
            count += 1
            if stop.is_set() or step.token in self._ends:
                reason = "stop"
                break
            steps.append(step)
            text = b"".join(self.vocabulary[one.token] for one in steps).decode(errors="replace")
            cut = min((at for end in request.stop if (at := text.find(end)) >= 0), default=-1)
            if cut >= 0:
                text, reason = text[:cut], "stop"
                break
        tokens = None
        if request.top_logprobs is not None:
            tokens = Logprobs(
                [self._text(step.token) for step in steps],
                [step.logprob for step in steps],
                [step.top for step in steps],
            )
        self._check_written(text, tokens, request)
        return Choice(text, reason, tokens, prompt), count

    def _check_written(self, text: str, tokens: Logprobs | None, request: Request) -> None:
        if not text and request.prompt_logprobs is None and not (tokens and tokens.tokens):
            raise NeuronFailure("malformed-reply", f"{self._source} ends before it says anything")

    def _steps(
        self, request: Request, ids: list[int], read: Any, generator: torch.Generator
    ) -> Iterator[_Step]:
        if request.n > 1:  # a cache grows in place: each choice reads the prompt for itself
            read = self._read(ids, everywhere=False)
        for number in range(request.max_tokens):
            logits = read.logits[0, -1].float()  # (vocabulary,)
            row = torch.log_softmax(logits, -1)
            token = _drawn(logits, request.temperature, generator)
            top = self._alternatives(row, request.top_logprobs or 0, token)
            yield _Step(token, float(row[token]), top)
            if number + 1 < request.max_tokens:
                following = torch.tensor([[token]], device=self.device)
                past = read.past_key_values
                read = self.network(input_ids=following, past_key_values=past, use_cache=True)

    @property
    def _ends(self) -> set[int]:
        found = self.network.generation_config.eos_token_id
        return set(found) if isinstance(found, list) else {found}


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / temperature, -1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _load(source: str, settings: BackendSettings) -> tuple[Any, Any]:
    """The network in evaluation mode and its tokenizer. Raises LLMError."""
    import transformers
    from safetensors import SafetensorError

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype, None)
    if kind is None:
        raise LLMError(f"'{settings.dtype}' is no dtype: write for example float32 or bfloat16")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=kind, output_loading_info=True
        )
        network, info = loaded
        network = network.eval().to(settings.device)
    except (OSError, ValueError, RuntimeError, KeyError, AssertionError, SafetensorError) as error:
        raise LLMError(
            f"{source} cannot be used as a language model: {brief(error)}; name a folder with "
            "config.json, weights and tokenizer, or a hub id, and a --device that is there"
        ) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise LLMError(f"{source} lacks the weights {absent[0]} ({len(absent)} in all)")
    return network, tokenizer


def _digest(source: str, network: Any) -> str:
    """What tells one model's replies from another's: the hub's commit, or the files' ends."""
    folder = Path(source)
    if not folder.is_dir():
        return str(getattr(network.config, "_commit_hash", None) or "unknown")[:12]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".safetensors", ".bin"):
            size = path.stat().st_size
            digest.update(f"{path.name} {size} ".encode())
            with path.open("rb") as file:
                digest.update(file.read(_DIGEST_BYTES))
                file.seek(max(0, size - _DIGEST_BYTES))
                digest.update(file.read())
    return digest.hexdigest()[:12]
