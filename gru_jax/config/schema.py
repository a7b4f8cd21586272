"""A JSON schema of what a config may say, for editors: made from the sections, and true to what the loader takes."""

import copy
import inspect

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gru_jax.config.config import Config
from gru_jax.config.sections.base import of_kind_alone
from gru_jax.config.sections.sweep import DRAWS, MOST_VALUES, OUTSIDE, SPAN
from gru_jax.types import Plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Behind the name of a definition: what of it a file may say that is laid over a base.
_PART = "-over-base"

_BASE = {
    "description": "A config, looked for beside this one, whose values stand where this one says nothing.",
    "type": "string",
    "minLength": 1,
}
_SWEPT = {"$ref": "#/$defs/SweptValues"}


def config_schema() -> JsonSchemaValue:
    """The schema, draft 2020-12.

    It knows keys, types, ranges and kinds; rules between keys, such as heads that divide hidden, are the loader's. With
    `base`, anything may be left out.

    Example:
        >>> config_schema()["else"]["properties"]["seed"]["maximum"]
        4294967295
    """
    made = Config.model_json_schema(by_alias=True, schema_generator=_ByKind)
    definitions = made.pop("$defs")
    _sweep(definitions)
    for definition in [*definitions.values(), made]:
        _alone(definition, definitions)
    for definition in definitions.values():
        _describe(definition)
    _describe(made)
    whole = {"properties": made["properties"], "required": made["required"]}
    parts = {name + _PART: _part(section) for name, section in definitions.items() if "properties" in section}
    return {
        "$schema": DIALECT,
        "title": "gru_jax config",
        "description": "One run of gru-jax; gru-jax list prints the keys of each kind with their defaults.",
        "type": "object",
        "properties": {key: {} for key in made["properties"]} | {"base": _BASE},
        "additionalProperties": False,
        "if": {"required": ["base"]},
        "then": {"properties": _part(whole)["properties"]},
        "else": whole,
        "$defs": definitions | parts,
    }


class _ByKind(GenerateJsonSchema):
    """Sections of several kinds as one `if` for each: an editor then speaks of the keys of the kind that is there."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        kinds = made["discriminator"]["mapping"]
        return {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(kinds)}},
            "allOf": [
                {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": {"$ref": section}}
                for kind, section in kinds.items()
            ],
        }

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        made = super().function_before_schema(schema)
        if schema["function"]["function"] is not of_kind_alone:
            return made
        return {"if": {"type": "string"}, "then": made["properties"]["kind"], "else": made}

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _alone(definition: dict[str, Plain], definitions: dict[str, Plain]) -> None:
    """Where a kind's name alone is taken: only that of a kind that has to say nothing else."""
    for value in definition.get("properties", {}).values():
        if value.get("if") == {"type": "string"}:
            branches = value["else"]["allOf"]
            kinds = {each["if"]["properties"]["kind"]["const"]: each["then"]["$ref"] for each in branches}
            needs = {kind: definitions[ref.rpartition("/")[2]].get("required", []) for kind, ref in kinds.items()}
            value["then"] = {"enum": [kind for kind, keys in needs.items() if set(keys) <= {"kind"}]}


def _describe(definition: dict[str, Plain]) -> None:
    """Gives every key of a section the section's docstring, which speaks of the keys that need it."""
    said = inspect.cleandoc(definition.get("description", ""))
    for value in definition.get("properties", {}).values():
        value.setdefault("description", said)


def _sweep(definitions: dict[str, Plain]) -> None:
    """Puts in what the section `sweep` takes: any key of the config, dotted or nested, with its values."""
    count = {"type": "integer", "minimum": 1, "maximum": MOST_VALUES}
    bounds = {"type": "array", "items": {"type": "number", "minimum": -1e38, "maximum": 1e38}}
    draws = {
        "properties": {
            **{kind: bounds | {"minItems": 2, "maxItems": 2} for kind in DRAWS},
            "n": count,
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        },
        "additionalProperties": False,
        "oneOf": [{"required": [kind]} for kind in DRAWS],
        "required": ["n"],
    }
    is_draws = {"anyOf": [{"required": [key]} for key in (*DRAWS, "n")]}
    definitions["SweptValues"] = {
        "description": "a list of values, whole numbers such as 0-7, draws, or keys of a section with such",
        "type": ["array", "string", "object"],
        "allOf": [
            {"if": {"type": "array"}, "then": {"minItems": 1, "maxItems": MOST_VALUES, "uniqueItems": True}},
            {"if": {"type": "string"}, "then": {"pattern": rf"^\s*{SPAN.pattern}\s*$"}},
            {
                "if": {"type": "object"},
                "then": {"if": is_draws, "then": draws, "else": {"additionalProperties": _SWEPT}},
            },
        ],
    }
    keys = {"propertyNames": {"not": {"pattern": rf"^({'|'.join(OUTSIDE)})(\.|$)"}}, "additionalProperties": _SWEPT}
    section = definitions["SweepConfig"]
    section["properties"]["vmap"] |= {"anyOf": [{"type": "boolean"}, count]}
    section["properties"]["over"] = keys | {"type": "object"}
    section |= keys


def _part(value: Plain) -> Plain:
    """A definition for files that are laid over a base, where every key may be left out."""
    if isinstance(value, list):
        return [_part(each) for each in value]
    if not isinstance(value, dict):
        return copy.copy(value)
    if value == _SWEPT:
        return value
    if "$ref" in value:
        return value | {"$ref": value["$ref"] + _PART}
    # What a key has when the file leaves it out is what the base says.
    part = {key: _part(each) for key, each in value.items() if key not in ("required", "default")}
    if "kind" in value.get("required", []) and "allOf" in value:
        # Its kind is the base's: the keys of any kind.
        part["if"] = {"required": ["kind"]}
        part["then"] = {"allOf": [_when_kind(each) for each in value["allOf"]]}
        part["else"] = {"anyOf": [_part(each["then"]) for each in value["allOf"]]}
        del part["allOf"]
    return part


def _when_kind(branch: dict[str, Plain]) -> dict[str, Plain]:
    return {"if": branch["if"], "then": _part(branch["then"])}
