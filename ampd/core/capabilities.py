"""What this daemon speaks and takes: the answer to `hello`, which a client of any version can read first.

The schema of the live keys is generated from the structs of the job file, so it cannot disagree with what `set`
accepts. It is JSON Schema 2020-12 over the full keys ("amp.dtype"), one property each.
"""

from __future__ import annotations

from typing import Any

import msgspec

import ampd
from ampd.core import keys
from ampd.core.description import FIELDS, MEANING, RESULTS
from ampd.core.keys import Key
from ampd.core.protocol import ROLE_OF, VERSION, Command
from ampd.core.replies import Result
from ampd.core.view import JobView


def hello(view: JobView) -> Result:
    """Versions, operations with roles, fields and results, codes, and the schema of the live keys."""
    return {
        "protocol": VERSION,
        "version": ampd.__version__,
        "boot": view.boot,
        "name": view.name,
        "pid": view.pid,
        "operations": {str(kind.__struct_config__.tag): _operation(kind) for kind in ROLE_OF},
        "codes": {
            code.value: {"meaning": meaning, "retryable": code.is_retryable}
            for code, meaning in MEANING.items()
        },
        "live_keys": live_schema(),
    }


def _operation(kind: type[Command]) -> Result:
    _references, structs = msgspec.json.schema_components([kind], ref_template="{name}")
    fields = {name: schema for name, schema in structs[kind.__name__]["properties"].items() if name != "op"}
    return {
        "role": ROLE_OF[kind].name.lower(),
        "doc": kind.__doc__,
        "fields": {name: schema | {"description": FIELDS[name]} for name, schema in fields.items()},
        "result": RESULTS.get(kind, {}),
    }


def live_schema() -> dict[str, Any]:
    """The JSON Schema of an object of live keys and their values."""
    live = {path: _property(key) for path, key in keys.table().items() if key.live}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": live,
        "additionalProperties": False,
    }


def _property(key: Key) -> dict[str, Any]:
    described = msgspec.json.schema(key.type) | {"description": key.doc, "default": key.default}
    return described | ({"x-unit": key.unit} if key.unit else {})
