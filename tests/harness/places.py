"""The keys of a service file by their places, as `evener schema` has them, and those that a file makes use of.

A place is a kind of mapping, such as a stage or a route. What may stand in several places, such as `cors`, is one place
under the path at which the schema has it first.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    path: str
    keys: dict


def _parts(schema, path):
    """The schemas within this one, each with its path."""
    if "properties" in schema:
        # What else such a schema says with `anyOf` is which of its keys are required.
        for name, inner in schema["properties"].items():
            yield f"{path}.{name}".lstrip("."), inner
        return
    for inner in schema.get("anyOf", []):
        yield path, inner
    if "items" in schema:
        yield f"{path}[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}.*", schema["additionalProperties"]


def _identity(schema):
    return json.dumps(schema["properties"], sort_keys=True)


def find_places(schema):
    """Every place, by what is the same of a mapping wherever it stands."""
    found = {}

    def walk(part, path):
        if "properties" in part and _identity(part) not in found:
            taken = {place.path for place in found.values()}
            own = f"{path}.{part['required'][0]}" if path in taken or path == "pipelines.*[]" else path
            found[_identity(part)] = Place(own, part["properties"])
        for inner_path, inner in _parts(part, path):
            walk(inner, inner_path)

    walk(schema, "")
    return found


def keys_in_use(schema, value):
    """The keys of a service file, each with the path of its place."""
    places = find_places(schema)
    used = set()

    def walk(part, value):
        if "properties" in part:
            # Of several kinds of mappings it is the one whose required keys are there.
            if isinstance(value, dict) and set(part.get("required", [])) <= set(value):
                for name in set(value) & set(part["properties"]):
                    used.add((places[_identity(part)].path, name))
                    walk(part["properties"][name], value[name])
            return
        for inner in part.get("anyOf", []):
            walk(inner, value)
        if "items" in part and isinstance(value, list):
            for item in value:
                walk(part["items"], item)
        if isinstance(part.get("additionalProperties"), dict) and isinstance(value, dict):
            for item in value.values():
                walk(part["additionalProperties"], item)

    walk(schema, value)
    return used
