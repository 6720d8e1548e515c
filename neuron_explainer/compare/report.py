"""A comparison as Markdown and as JSON."""

from dataclasses import asdict
from typing import Any

import orjson

from neuron_explainer.compare.blocks import Block, blocks, heading
from neuron_explainer.compare.results import Comparison

VERSION = 1


def as_mapping(found: Comparison) -> dict[str, Any]:
    """All figures, for programs; undefined is null."""
    guards = [asdict(guard) | {"verdict": guard.verdict} for guard in found.guards]
    return {"report_version": VERSION, **asdict(found), "guards": guards}


def as_json(found: Comparison) -> bytes:
    """`report.json`."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(as_mapping(found), option=options | orjson.OPT_SERIALIZE_NUMPY)


def title(found: Comparison) -> str:
    """The methods, the baseline first."""
    return " against ".join(line.name for line in found.lines if line.role == "method")


def as_markdown(found: Comparison) -> str:
    """`report.md`."""
    parts = [f"# {_cell(title(found))}", "  \n".join(heading(found))]
    for block in blocks(found):
        parts += [f"## {block.title}", _table(block)]
        if block.remark:
            parts.append(block.remark)
    if found.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in found.notes)]
    return "\n\n".join(parts) + "\n"


def _table(block: Block) -> str:
    lines = [block.head, tuple("---" for _ in block.head), *block.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot break out of its cell: explanations hold anything."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split()) or " "
