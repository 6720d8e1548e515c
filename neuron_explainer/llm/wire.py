"""The OpenAI protocol as data: requests to bodies, bodies to verified answers.

Servers ignore parameters that they do not know without a word. So nothing in a reply is believed to
be there because it was asked for: what is missing is a `Lack`, what is broken is malformed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import orjson

from neuron_explainer.llm import schema
from neuron_explainer.llm.base import Choice, Feature, Logprobs, Request, Response, Usage
from neuron_explainer.llm.failures import Lack, Unusable, brief, from_status, malformed
from neuron_explainer.llm.logprobs import FLOOR, echoed, placed, prompt_logprobs, written

LimitName = Literal["max_tokens", "max_completion_tokens"]
PromptForm = Literal["echo", "prompt_logprobs"]  # vLLM knows both, others at most echo


def path(request: Request) -> str:
    """Where a request goes, below the base URL."""
    return "/completions" if isinstance(request.prompt, str) else "/chat/completions"


def body(
    request: Request,
    model: str,
    limit_name: LimitName = "max_tokens",
    form: PromptForm = "echo",
) -> dict[str, Any]:
    """A request as the protocol writes it."""
    made: dict[str, Any] = {"model": model, "temperature": request.temperature}
    if isinstance(request.prompt, str):
        made |= {"prompt": request.prompt, "max_tokens": request.max_tokens}
    else:
        messages = [asdict(message) for message in request.prompt]
        made |= {"messages": messages, limit_name: request.max_tokens}
    optional = {"seed": request.sampling_seed, "stop": list(request.stop) or None}
    made |= {name: value for name, value in optional.items() if value is not None}
    if request.n > 1:
        made["n"] = request.n
    if request.json_schema is not None:
        made["response_format"] = _response_format(request.json_schema)
    return made | _logprob_parameters(request, form)


def _response_format(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": "reply", "strict": True, "schema": json_schema}
    return {"type": "json_schema", "json_schema": named}


def _logprob_parameters(request: Request, form: PromptForm) -> dict[str, Any]:
    made: dict[str, Any] = {}
    wanted = request.top_logprobs
    if not isinstance(request.prompt, str):
        if wanted is not None:
            made |= {"logprobs": True, "top_logprobs": wanted}
        if request.prompt_logprobs is not None:
            made["prompt_logprobs"] = request.prompt_logprobs
        return made
    if request.prompt_logprobs is None:
        return {} if wanted is None else {"logprobs": wanted}
    if form == "echo":
        return {"echo": True, "logprobs": max(wanted or 0, request.prompt_logprobs)}
    made["prompt_logprobs"] = request.prompt_logprobs
    return made if wanted is None else made | {"logprobs": wanted}


def decode(content: bytes) -> Any:
    """JSON, with the infinities that some servers write. Raises Transient."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            decoded = json.loads(content, parse_constant={"-Infinity": FLOOR}.get)
            orjson.dumps(decoded)  # half a surrogate pair is text that nothing can write again
            return decoded
        except (ValueError, TypeError) as error:
            raise malformed(
                f"the reply is no JSON: {brief(content.decode(errors='replace'), 80)!r}"
            ) from error


def answer(content: Any, request: Request, who: str, form: PromptForm = "echo") -> Response:
    """A decoded body as a verified answer.

    Raises Transient or Lack for a reply that is not what was asked for, Unusable for one that is
    refused or cut short, LLMError for an error that was sent as a reply.
    """
    if not isinstance(content, dict):
        raise malformed("the reply is no JSON object")
    choices = content.get("choices")
    if not isinstance(choices, list):
        raise _instead_of_choices(content, who)
    usage = _usage(content.get("usage"))
    if not choices or not all(isinstance(choice, dict) for choice in choices):
        raise malformed("the reply has no choice in it", usage)
    if len(choices) != request.n:
        raise Lack("n", f"{request.n} choices were asked for, not {len(choices)}", usage=usage)
    made = [_choice(choice, content, request, usage, form) for choice in choices]
    return Response(tuple(made), usage, str(content.get("model") or ""))


def _instead_of_choices(content: dict[str, Any], who: str) -> Exception:
    error = content.get("error")
    if not isinstance(error, dict):
        return malformed("the reply has no choices")
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return from_status(status, str(error.get("message", error)), {}, who)


def _usage(content: Any) -> Usage:
    if not isinstance(content, dict):
        return Usage(requests=1)
    details = content.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [content.get("prompt_tokens"), cached, content.get("completion_tokens")]
    read, cached, wrote = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(read, cached, wrote, requests=1)


def _choice(
    choice: dict[str, Any],
    content: dict[str, Any],
    request: Request,
    usage: Usage,
    form: PromptForm,
) -> Choice:
    text, reason = _text(choice, request, usage), str(choice.get("finish_reason") or "stop")
    tokens, prompt = written(choice.get("logprobs"), usage), None
    if request.prompt_logprobs is not None:
        if isinstance(request.prompt, str) and form == "echo":
            greedy = request.temperature == 0
            text, prompt, tokens = echoed(text, tokens, request.prompt, usage, greedy=greedy)
        else:
            # vLLM puts it beside the choices of a chat, and into the choice of a completion
            found = choice.get("prompt_logprobs") or content.get("prompt_logprobs")
            prompt = prompt_logprobs(found, request.prompt, usage)
    if request.top_logprobs is not None:
        _verify_tokens(tokens, request.top_logprobs, usage)
    elif request.prompt_logprobs is not None:
        tokens = None
    _verify_text(text, reason, request, tokens, usage)
    return Choice(text, reason, None if tokens is None else placed(tokens, text), prompt)


def _text(choice: dict[str, Any], request: Request, usage: Usage) -> str:
    reason = choice.get("finish_reason")
    if reason == "error":
        raise malformed(f"the server failed half way: {brief(choice.get('error'))}", usage)
    if isinstance(request.prompt, str):
        text = choice.get("text")
    else:
        message = choice.get("message")
        if not isinstance(message, dict):
            raise malformed("the choice has no message", usage)
        if message.get("refusal"):
            said = brief(message["refusal"])
            raise Unusable("refused", f"the model refuses: {said}", usage=usage)
        text = message.get("content")
    if reason == "content_filter":
        raise Unusable("refused", "the provider's filter withheld the reply", usage=usage)
    if text is not None and not isinstance(text, str):
        raise malformed("the choice's text is no text", usage)
    return text or ""


def _verify_tokens(tokens: Logprobs | None, wanted: int, usage: Usage) -> None:
    lack: Feature = "top_logprobs"
    if tokens is None or not tokens.tokens:
        raise Lack(lack, "log probabilities were asked for and are not in the reply", usage=usage)
    if wanted and not all(tokens.top):
        raise Lack(lack, "a token comes without its alternatives", usage=usage)


def _verify_text(
    text: str, reason: str, request: Request, tokens: Logprobs | None, usage: Usage
) -> None:
    if not text and tokens is None and request.prompt_logprobs is None:
        if reason == "length":
            raise Unusable(
                "cut-short",
                f"all {request.max_tokens} tokens went into thinking: raise the limit on tokens",
                usage=usage,
            )
        raise malformed("the reply is empty", usage)
    if request.json_schema is not None:
        _verify_schema(text, reason, request, usage)


def _verify_schema(text: str, reason: str, request: Request, usage: Usage) -> None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        if reason == "length":
            raise Unusable(
                "cut-short",
                f"the reply was cut at {request.max_tokens} tokens: raise the limit",
                usage=usage,
                reply=text,
            ) from None
        found: str | None = f"the reply is no JSON: {brief(text, 80)!r}"
    else:
        found = schema.problem(value, request.json_schema or {})
    if found:
        raise Lack("json_schema", f"the schema does not hold: {found}", usage=usage, reply=text)
