"""Frozen dataclasses as JSON objects that carry their class's name in `dataclass_name`, and back.

Reading is strict: a field that is unknown, missing or of another type is a DataError that names it.
The tag may be absent; what an object is follows from its place. JSON has no NaN and no infinity:
both are written as null, and a literal NaN is an error.
"""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import orjson

from neuron_explainer.errors import DataError
from neuron_explainer.tokens import readable

TAG = "dataclass_name"
DEEPEST = 32  # levels of objects and lists

Made = TypeVar("Made")
Json = Any  # a value as JSON holds it
Hint = Any  # a type as an annotation holds it
Where = tuple[str | int, ...]  # the path of a value, from the top
Decode = Callable[[Json, Where], object]


class NoNumber:
    """A literal that JSON has no number for: NaN, an infinity, 1e999."""

    def __init__(self, literal: str) -> None:
        self.literal = literal


def dumps(value: object) -> bytes:
    """`value`, a dataclass, as one line of JSON."""
    try:
        return orjson.dumps(value, _tagged, orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        # half a surrogate pair, which orjson refuses: JSON can hold it as an escape
        return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).encode("ascii")


def _tagged(value: Json) -> dict[str, Any]:
    content = {field.name: getattr(value, field.name) for field in fields(value)}
    return content | {TAG: type(value).__name__}


def _plain(value: Json) -> Json:
    if is_dataclass(value):
        return {name: _plain(item) for name, item in _tagged(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse(data: bytes | str) -> Json:
    """JSON as plain values, with a `NoNumber` where it holds none. Raises DataError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    # slower, but it knows half surrogate pairs and can say where a NaN stands
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, parse_constant=NoNumber, parse_float=_finite)
    except RecursionError as error:
        raise DataError("it is nested too deep") from error
    except ValueError as error:
        raise DataError(f"it is no JSON: {reason}") from error


def _finite(literal: str) -> float | NoNumber:
    value = float(literal)
    return value if math.isfinite(value) else NoNumber(literal)


def decode(kind: type[Made], value: Json) -> Made:
    """Plain values as a dataclass. Raises DataError that names the field at fault."""
    return cast(Made, _object(kind, value, ()))


def _fail(where: Where, message: str) -> NoReturn:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    raise DataError(f"field {path.lstrip('.')}: {message}" if path else message)


def _brief(value: Json) -> str:
    if isinstance(value, NoNumber):
        return f"{value.literal[:20]}, which is no JSON number: write null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = value[:40] if isinstance(value, str) else json.dumps(value)[:40]
    return f"'{readable(text.encode('utf-8', 'surrogatepass'))}'"


def _object(kind: Hint, value: Json, where: Where) -> object:
    if not isinstance(value, dict):
        _fail(where, f"expected a {kind.__name__} object, not {_brief(value)}")
    if len(where) > DEEPEST:
        raise DataError("it is nested too deep")
    decoders, needed = _plan(kind)
    tag = value.get(TAG, kind.__name__)
    if tag != kind.__name__:
        _fail(where, f"{TAG} is {_brief(tag)}, expected {kind.__name__}")
    missing = needed - value.keys()
    if missing:
        _fail((*where, min(missing)), f"missing in a {kind.__name__}")
    content = {}
    for name, item in value.items():
        if name in decoders:
            content[name] = decoders[name](item, (*where, name))
        elif name != TAG:
            _fail(where, f"unknown field {_brief(name)} in a {kind.__name__}")
    try:
        return kind(**content)
    except ValueError as error:
        _fail(where, str(error))


@cache
def _plan(kind: Hint) -> tuple[dict[str, Decode], frozenset[str]]:
    """How each field of a dataclass is read, and which must be there."""
    hints = get_type_hints(kind)
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    return {name: _decoder(hint) for name, hint in hints.items()}, frozenset(needed)


def _decoder(hint: Hint) -> Decode:
    origin: Hint = get_origin(hint)
    arguments = get_args(hint)
    if is_dataclass(hint):
        return partial(_object, hint)
    if origin in (Union, UnionType):
        return partial(_nullable, _decoder(next(kind for kind in arguments if kind != NoneType)))
    if origin is Literal:
        return partial(_one_of, arguments)
    if origin is tuple:
        return _list_decoder(arguments[0])
    return {int: _integer, float: _number, str: _text, bool: _truth}[hint]


def _list_decoder(item: Hint) -> Decode:
    if item is str:
        return _tokens
    if item in (float, float | None):
        return partial(_numbers, _decoder(item))
    return partial(_list, _decoder(item))


def _nullable(inner: Decode, value: Json, where: Where) -> object:
    return None if value is None else inner(value, where)


def _one_of(known: tuple[str, ...], value: Json, where: Where) -> object:
    if value not in known:
        _fail(where, f"expected {' or '.join(known)}, not {_brief(value)}")
    return value


def _list(inner: Decode, value: Json, where: Where) -> tuple[object, ...]:
    if not isinstance(value, list):
        _fail(where, f"expected a list, not {_brief(value)}")
    return tuple(inner(item, (*where, place)) for place, item in enumerate(value))


def _numbers(inner: Decode, value: Json, where: Where) -> tuple[object, ...]:
    if isinstance(value, list):  # nearly always one of these, which are much faster
        kinds = set(map(type, value))
        if kinds == {float}:
            return tuple(value)
        if kinds == {float, int} and max(map(abs, value)) <= 1 << 53:
            return tuple(map(float, value))
    return _list(inner, value, where)


def _tokens(value: Json, where: Where) -> tuple[object, ...]:
    if isinstance(value, list) and set(map(type, value)) == {str}:
        return tuple(value)
    return _list(_token, value, where)


def _token(value: Json, where: Where) -> str:
    if not isinstance(value, str):
        _fail(where, f"expected text, not {_brief(value)}")
    return value


def _text(value: Json, where: Where) -> str:
    text = _token(value, where)
    try:
        text.encode()
    except UnicodeEncodeError:
        _fail(where, "it holds half a surrogate pair, which is no text")
    return text


def _truth(value: Json, where: Where) -> bool:
    if not isinstance(value, bool):
        _fail(where, f"expected true or false, not {_brief(value)}")
    return value


def _integer(value: Json, where: Where) -> int:
    if type(value) is not int or value < 0:
        _fail(where, f"expected a whole number from 0, not {_brief(value)}")
    return value


def _number(value: Json, where: Where) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        _fail(where, f"expected a number, not {_brief(value)}")
    if abs(value) > 1 << 53:
        _fail(where, f"{_brief(value)} is too large to be kept exactly; write it with a point")
    return float(value)
