"""Whether a value is what a JSON schema says, for the part of JSON Schema that structured output
knows: type, properties, required, additionalProperties, items, enum, const, anyOf and bounds.
"""

from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problem(value: Any, schema: Mapping[str, Any], where: str = "the reply") -> str | None:
    """What is wrong with `value`, or None when the schema holds."""
    if "anyOf" in schema:
        found = [problem(value, option, where) for option in schema["anyOf"]]
        return found[0] if all(found) else None
    if isinstance(value, dict):
        inside = _object_problem
    elif isinstance(value, list):
        inside = _array_problem
    else:
        inside = _bounds_problem
    return _own_problem(value, schema, where) or inside(value, schema, where)


def _own_problem(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where} is no {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        return f"{where} is not {schema['const']!r}"
    return None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _object_problem(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} has no {name!r}"
    for name, item in value.items():
        rule = properties.get(name, schema.get("additionalProperties", True))
        if rule is False:
            return f"{where} has an unexpected {name!r}"
        found = problem(item, rule, f"{name!r}") if isinstance(rule, Mapping) else None
        if found:
            return found
    return None


def _array_problem(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not low <= len(value) <= high:
        return f"{where} has {len(value)} items, not {low} to {high}"
    rule = schema.get("items")
    if not isinstance(rule, Mapping):
        return None
    found = (problem(item, rule, f"item {place} of {where}") for place, item in enumerate(value))
    return next(filter(None, found), None)


def _bounds_problem(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if value < schema.get("minimum", value):
        return f"{where} is {value}, below {schema['minimum']}"
    if value > schema.get("maximum", value):
        return f"{where} is {value}, above {schema['maximum']}"
    return None
