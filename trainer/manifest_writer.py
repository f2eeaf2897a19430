"""Writes manifest.toml: the standard library reads TOML but cannot write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from model_zoo.cards import Manifest, StyleCard, ZooError
from model_zoo.checkpoints import write_file

HEADER = """\
# One [[style]] a style, in the order in which the service lists them.
# Written by `python -m trainer` (export, zoo-check --write); words may be changed by hand,
# checksums may not.
"""


def write_manifest(manifest: Manifest) -> None:
    """Replace ``manifest.zoo / "manifest.toml"`` in one step.

    Raises:
        ZooError: it cannot be written.
    """
    path = manifest.zoo / "manifest.toml"
    text = HEADER + "".join(f"\n{_entry(card)}" for card in manifest)
    write_file(text.encode(), path)


def _entry(card: StyleCard) -> str:
    lines = ["[[style]]"]
    tables = []
    for name in (f.name for f in fields(StyleCard)):
        value = getattr(card, name)
        if not value:
            continue  # the default
        if isinstance(value, Mapping):
            tables.append(f"{name} = {_inline_table(value)}")
        else:
            lines.append(f"{name} = {_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _inline_table(table: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in table.items()) + " }"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # TOML's basic strings escape as JSON's do, and DEL besides.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float):
        return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")
    if isinstance(value, dict):
        return _inline_table(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ZooError(f"{value!r} cannot be written to a manifest")
