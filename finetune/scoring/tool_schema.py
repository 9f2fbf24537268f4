"""Do a call's arguments fit the schema of its tool? As they are written: nothing is converted.

    wrong = misfit(tool, call.arguments)          # "city: 5 is not of type 'string'", or ""

The doctor's findings in a file and the scores of an answer are told by this one function; what a
tool gets when it really runs is the business of `tools`, which training does not import. As
there, a schema that says nothing of further fields allows none beside its `properties`. A schema
that is none (ToolAlpaca's texts, ChatGLM3's early `params`) checks nothing. Nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from glm.errors import BadRequest
from glm.messages import ToolSpec

PATTERN_SECONDS = 0.2
LONGEST = 120  # characters of a sentence
_SAYS_SOMETHING = {"properties", "$ref", "allOf", "anyOf", "oneOf"}
_MARKS = {"type", *_SAYS_SOMETHING}


class BadSchema(BadRequest):
    """A schema that cannot be applied, found out when it is."""


def has_schema(tool: ToolSpec) -> bool:
    """Whether there is a usable JSON schema that says something about the arguments."""
    schema = tool.parameters
    if not isinstance(schema, Mapping) or not _SAYS_SOMETHING & set(schema):
        return False
    return _validator(_text(schema))[0] is not None


def schema_problem(tool: ToolSpec) -> str:
    """Why a tool's JSON schema is none; "" when it is one, or none was meant."""
    schema = tool.parameters
    return _validator(_text(schema))[1] if isinstance(schema, Mapping) else ""


def misfit(tool: ToolSpec, arguments: Mapping[str, Any]) -> str:
    """What is wrong with the arguments, in short; "" when they fit or there is no schema.

    Raises BadSchema when the schema refers to something outside itself, or cannot be applied.
    """
    if not isinstance(tool.parameters, Mapping):
        return ""
    validator, _ = _validator(_text(tool.parameters))
    if validator is None:
        return ""
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(validator.iter_errors(dict(arguments)))
    except Unresolvable:
        raise BadSchema("refers to something outside itself") from None
    except RecursionError as failure:
        raise BadSchema(f"cannot be applied: {failure}") from None
    if error is None:
        return ""
    where = ".".join(str(step) for step in error.absolute_path)
    said = str(error.message)
    said = said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
    return f"{where}: {said}" if where else said


def _text(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, default=str)


@lru_cache(maxsize=512)
def _validator(text: str) -> tuple[Any, str]:
    """What checks arguments, or None and why there is none."""
    from jsonschema import validators  # type: ignore[import-untyped]
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from referencing import Registry

    schema = json.loads(text)
    if not _MARKS & set(schema):
        return None, ""  # not a JSON schema but a list of what each argument means
    draft = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        draft.check_schema(schema)
    except SchemaError as error:
        return None, str(error.message)[:LONGEST]
    except RecursionError as error:
        return None, str(error)[:LONGEST]
    if "properties" in schema:
        schema = {"additionalProperties": False, **schema}
    # A registry of its own: the library's fetches what a schema refers to, from files, too.
    return _checker(draft)(schema, registry=Registry()), ""


@cache
def _checker(draft: Any) -> Any:
    """A draft's validator with patterns that end in time."""
    from jsonschema import validators  # type: ignore[import-untyped]

    return validators.extend(draft, {"pattern": _pattern})


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Any]:
    import regex  # type: ignore[import-untyped]
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

    if not isinstance(value, str):
        return
    try:
        found = regex.search(pattern, value, timeout=PATTERN_SECONDS, concurrent=True)
    except regex.error as error:
        raise BadSchema(f"cannot be applied: {error}") from None
    except TimeoutError:
        yield ValidationError("takes too long to compare with the pattern of the schema")
        return
    if not found:
        yield ValidationError(f"does not match the pattern {pattern[:100]}")
