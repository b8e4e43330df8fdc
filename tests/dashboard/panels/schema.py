"""Checks dashboard.json strictly against Grafana's own model of a dashboard (PyPI: grafana-foundation-sdk).

The SDK's classes are generated from Grafana's schemas. They parse leniently: they drop unknown keys and keep wrong
values. So this script parses the file with them, serializes the result, and reports

- each key that was lost, which this version of Grafana does not know;
- each value that does not have the type, or is not in the enumeration, that the model declares;
- each panel or query whose type has no model.

Usage: schema.py dashboard.json, with the SDK on the Python path. Prints one line for each fault. The exit status is 1 if
there are any.
"""

import enum
import json
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, prometheus

faults = []


def compare(path, written, read):
    """Reports what the model lost or changed."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                compare(f"{path}.{key}", value, read[key])
            elif value is not None:
                faults.append(f"{path}.{key}: unknown to the model")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for i, (one, other) in enumerate(zip(written, read)):
            compare(f"{path}[{i}]", one, other)
    elif written != read:
        faults.append(f"{path}: {written!r} was read as {read!r}")


def fits(value, hint):
    """Returns whether a value has the declared type. check() checks the attributes of an object."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, typing.Any) or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, arguments[1]) for one in value.values())
    if hint is type(None):
        return value is None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [one.value for one in hint]
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def check(path, value):
    """Reports every attribute under `value` that does not fit its declaration."""
    if isinstance(value, list):
        for i, one in enumerate(value):
            check(f"{path}[{i}]", one)
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, hint in typing.get_type_hints(type(value)).items():
            attribute = getattr(value, name)
            if not fits(attribute, hint):
                faults.append(f"{path}.{name}: {attribute!r} is not {hint}")
            check(f"{path}.{name}", attribute)


def panels_of(board):
    """Returns every panel, including those of collapsed rows."""
    for panel in board.panels:
        yield panel
        yield from getattr(panel, "panels", [])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        written = json.load(file)
    plugins.register_default_plugins()
    board = dashboard.Dashboard.from_json(written)
    read = json.loads(JSONEncoder().encode(board))
    compare("dashboard", written, read)
    check("dashboard", board)
    for panel in panels_of(board):
        if panel.type_val != "row" and runtime.panelcfg_config(panel.type_val) is None:
            faults.append(f"{panel.title}: no core panel is called {panel.type_val!r}")
        for target in getattr(panel, "targets", None) or []:
            if not isinstance(target, prometheus.Dataquery):
                faults.append(f"{panel.title}: a query that is not for Prometheus")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
