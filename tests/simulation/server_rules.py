"""What an API server does to objects: selectors, defaults, and server-side apply. Only as far as it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedding_operator.objects.compare import NAMED_BY

Raw = dict[str, Any]
_WHOLE = ("nodeSelector", "selector")  # maps that one manager owns as a whole
_STORED_AS = {"1024Mi": "1Gi", "2048Mi": "2Gi", "1000m": "1", "2000m": "2"}


def selects(raw: Mapping[str, Any], labels: str, fields: str) -> bool:
    """Label selectors of the forms `key` and `key=value`, field selectors of the form `a.b=value`."""
    own = raw["metadata"].get("labels") or {}
    for term in filter(None, labels.split(",")):
        key, equals, value = term.partition("=")
        if key not in own or (equals and own[key] != value):
            return False
    for term in filter(None, fields.split(",")):
        path, _, value = term.partition("=")
        found: Any = raw
        for part in path.split("."):
            found = found.get(part, "")
        if found != value:
            return False
    return True


def merge_applied(live: Raw, before: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Server-side apply: what was applied before and is not any more goes away, what others have added stays.

    Lists whose items have a name are merged by it; every other list is replaced whole.
    """
    for key in before.keys() - manifest.keys():
        live.pop(key, None)
    for key, value in manifest.items():
        earlier, there = before.get(key), live.get(key)
        if isinstance(value, Mapping) and isinstance(there, dict):
            if key in _WHOLE:
                live[key] = _copy(value)
            else:
                merge_applied(there, earlier if isinstance(earlier, Mapping) else {}, value)
        elif key in NAMED_BY and isinstance(value, list) and isinstance(there, list):
            number = "containerPort" if key == "ports" and "image" in manifest else NAMED_BY[key]
            _merge_named(there, earlier if isinstance(earlier, list) else [], value, number)
        else:
            live[key] = _copy(value)


def _merge_named(live: list[Any], before: list[Any], manifest: list[Any], name: str) -> None:
    wanted, earlier = ({item[name]: item for item in items} for items in (manifest, before))
    live[:] = [item for item in live if item[name] in wanted or item[name] not in earlier]
    known = {item[name]: item for item in live}
    for key, value in wanted.items():
        if key in known:
            merge_applied(known[key], earlier.get(key, {}), value)
        else:
            live.append(_copy(value))


def patch(live: Raw, operations: Sequence[Mapping[str, Any]]) -> None:
    """A JSON patch, as far as the operator writes any."""
    for operation in operations:
        *path, last = operation["path"].strip("/").split("/")
        place: Any = live
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        key = int(last) if isinstance(place, list) else last
        if operation["op"] == "remove":
            del place[key]
        else:
            place[key] = _copy(operation["value"])


def add_defaults(raw: Raw) -> None:
    """What the server adds to or rewrites in an object, so that a comparison has something to get wrong."""
    if raw["kind"] == "EmbeddingFineTune":
        raw.setdefault("status", {"observedGeneration": -1})
    if raw["kind"] == "Service":
        raw["spec"].setdefault("clusterIP", "10.0.0.1")
        raw["spec"].setdefault("sessionAffinity", "None")
    if raw["kind"] == "Deployment":
        _add_pod_defaults(raw["spec"]["template"]["spec"])


def _add_pod_defaults(pod: Raw) -> None:
    pod.setdefault("dnsPolicy", "ClusterFirst")
    pod.setdefault("restartPolicy", "Always")
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                container[probe].setdefault("successThreshold", 1)
        for item in container.get("env", ()):
            if item.get("value") == "":
                del item["value"]
        for values in container.get("resources", {}).values():
            values.update({name: _STORED_AS.get(amount, amount) for name, amount in values.items()})
    for volume in pod["volumes"]:
        if "sizeLimit" in volume.get("emptyDir", {}):
            limit = volume["emptyDir"]["sizeLimit"]
            volume["emptyDir"]["sizeLimit"] = _STORED_AS.get(limit, limit)


def schema_errors(value: Any, schema: Mapping[str, Any], path: str = "") -> list[str]:
    """Where a value breaks a structural schema; a field that the schema lacks would be pruned in silence."""
    if "x-kubernetes-int-or-string" in schema:
        return [] if isinstance(value, int | str) else [f"{path}: {value!r} is neither a number nor a text"]
    if "type" not in schema:  # a number, in quotes or not
        kind = "string" if isinstance(value, str) else "number"
        return schema_errors(value, {**schema, "type": kind}, path)
    check = {"object": _object_errors, "array": _array_errors, "string": _text_errors}.get(schema["type"])
    if check is not None:
        return check(value, schema, path)
    wanted = {"integer": int, "boolean": bool, "number": (int, float)}[schema["type"]]
    if not isinstance(value, wanted) or (schema["type"] == "integer" and isinstance(value, bool)):
        return [f"{path}: {value!r} is no {schema['type']}"]
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        return [f"{path}: {value} is out of range"]
    return []


def _object_errors(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no object"]
    errors = [f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value]
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return errors
    if len(value) > schema.get("maxProperties", len(value)):
        errors.append(f"{path}: {len(value)} entries are too many")
    for name, item in value.items():
        inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if inner is None and path:
            errors.append(f"{path}.{name}: not in the schema")
        elif inner is not None:
            errors += schema_errors(item, inner, f"{path}.{name}")
    return errors


def _array_errors(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: {value!r} is no list"]
    errors = [f"{path}: {len(value)} items are too many"] if len(value) > schema.get("maxItems", len(value)) else []
    for number, item in enumerate(value):
        errors += schema_errors(item, schema["items"], f"{path}[{number}]")
    return errors


def _text_errors(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    if not isinstance(value, str):
        return [f"{path}: {value!r} is no text"]
    errors = []
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        errors.append(f"{path}: {len(value)} characters, at most {schema.get('maxLength')}")
    if "enum" in schema and value not in schema["enum"]:
        errors.append(f"{path}: {value!r} is not one of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        errors.append(f"{path}: {value!r} does not match {schema['pattern']}")
    return errors


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value
