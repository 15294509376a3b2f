"""How much work a JSON Schema can make of a value: counted before it runs, for what runs cannot be stopped.

An evaluation is one subschema at one place of a value. A validator evaluates a place once for each way in which the
schema leads there, and ways multiply: a definition that refers twice to the next one, and so on, has 2^n of them at one
place; a recursive schema with two branches has 2^depth. So we count: `Bounds.work[d]` is the most evaluations that one
path into a value of depth d can take, an upper bound, since it adds up branches of which a validator leaves some out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from integration_service.contracts.wire import JsonSchema

MAX_TEXT = 256 * 1024
MAX_NESTING = 100
MAX_SUBSCHEMAS = 10_000
MAX_WORK = 20_000
"""Evaluations for one path into a value."""

_LEVELS = 100
_PATTERN_WORK = 10
_TEXT_UNIT = 64  # characters that count as one value more
_SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_ONE_OF_THE_CHILDREN = ("properties", "additionalProperties", "prefixItems", "items", "additionalItems")
_EVERY_CHILD = ("patternProperties", "unevaluatedProperties", "contains", "unevaluatedItems", "propertyNames")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class TooCostly(ValueError):
    """The schema could make more work than a worker may spend; the message says why."""


class Bounds:
    """What one schema can cost. `work[d]`: evaluations for one path into a value of depth d (a scalar has depth 0)."""

    def __init__(self, schema: JsonSchema) -> None:
        """Raises TooCostly. The schema has compiled: its keywords have the right types and its references exist."""
        graph = _Graph(schema) if isinstance(schema, dict) else None
        self.branching = graph is not None and graph.branching
        self.work, self._settled = graph.count() if graph is not None else ([1], True)
        if not self.work:
            raise TooCostly(f"it takes more than {MAX_WORK} evaluations for one value")

    def work_at(self, depth: int) -> int | None:
        """Evaluations for one path into a value that deep; None when that may be more than `MAX_WORK`."""
        if depth < len(self.work):
            return self.work[depth]
        return self.work[-1] if self._settled else None


def measure(value: Any, *, max_depth: int) -> tuple[int, int] | None:
    """Number of values in it, long text counted as several, and its depth; None when it is deeper than `max_depth`."""
    level, values = [value], 1
    for depth in range(max_depth + 1):
        values += sum(len(part) // _TEXT_UNIT for part in level if isinstance(part, str))
        inner = [item for item in level if isinstance(item, dict | list)]
        if not inner:
            return values, depth
        values += sum(map(len, inner))
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
    return None


class _Graph:
    """Every subschema that the root leads to, with the edges to those at the same place and at its children."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.branching = False
        self._root = root
        self._id = "id" if "draft-04" in str(root.get("$schema")) else "$id"
        self._resources: dict[str, Any] = {"": root}
        self._bases: dict[int, str] = {}
        self._anchors: dict[tuple[str, str], Any] = {("", ""): root}
        self._dynamic: dict[str, list[Any]] = {}
        self._index(root)
        self._order: list[dict[str, Any]] = []
        self._state: dict[int, bool] = {}
        self._same: dict[int, list[int]] = {}
        self._one: dict[int, list[int]] = {}
        self._every: dict[int, list[int]] = {}
        self._own: dict[int, int] = {}
        waiting = [root]
        while waiting:
            waiting += self._visit(waiting.pop())

    def count(self) -> tuple[list[int], bool]:
        """The work for each depth until it is too much, and whether it grows no more behind the last."""
        below: dict[int, int] = {}
        counted: list[int] = []
        for _ in range(_LEVELS):
            here: dict[int, int] = {}
            for node in self._order:
                key = id(node)
                work = self._own[key] + sum(here[other] for other in self._same[key])
                if below:
                    work += max((below[other] for other in self._one[key]), default=0)
                    work += sum(below[other] for other in self._every[key])
                here[key] = min(work, MAX_WORK + 1)
            if here[id(self._root)] > MAX_WORK:
                return counted, False
            if here == below:
                return counted, True
            counted.append(here[id(self._root)])
            below = here
        return counted, False

    def _visit(self, start: dict[str, Any]) -> list[dict[str, Any]]:
        """Adds what `start` leads to at its own place, the last first; returns what stands at the children."""
        children: list[dict[str, Any]] = []
        stack: list[tuple[dict[str, Any], Iterator[dict[str, Any]]]] = []

        def enter(node: dict[str, Any]) -> None:
            key = id(node)
            if len(self._state) >= MAX_SUBSCHEMAS:
                raise TooCostly(f"it has more than {MAX_SUBSCHEMAS} subschemas")
            self._state[key] = False
            same = list(_parts(node, _SAME_PLACE)) + list(self._referred(node))
            one, every = list(_parts(node, _ONE_OF_THE_CHILDREN)), list(_parts(node, _EVERY_CHILD))
            self._same[key], self._one[key] = list(map(id, same)), list(map(id, one))
            self._every[key] = list(map(id, every))
            self._own[key] = _own_work(node)
            self.branching = self.branching or not node.keys().isdisjoint(("anyOf", "oneOf", "not", "contains"))
            children.extend(one + every)
            stack.append((node, iter(same)))

        if id(start) not in self._state:
            enter(start)
        while stack:
            node, rest = stack[-1]
            other = next(rest, None)
            if other is None:
                stack.pop()
                self._state[id(node)] = True
                self._order.append(node)
            elif id(other) not in self._state:
                enter(other)
            elif not self._state[id(other)]:
                raise TooCostly("a reference leads back to itself without going deeper into the value")
        return [child for child in children if id(child) not in self._state]

    def _referred(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for keyword in _REFERENCES:
            reference = node.get(keyword)
            if not isinstance(reference, str):
                continue
            uri, fragment = self._absolute(self._bases.get(id(node), ""), reference)
            for found in self._resolve(uri, unquote(fragment), dynamic=keyword != "$ref"):
                if isinstance(found, dict):
                    yield found

    def _resolve(self, uri: str, fragment: str, *, dynamic: bool) -> list[Any]:
        if dynamic and not fragment.startswith("/"):
            return self._dynamic.get(fragment, []) or [self._resolve(uri, fragment, dynamic=False)[0]]
        if not fragment.startswith("/"):
            found = self._anchors.get((uri, fragment))
        else:
            found = self._resources.get(uri)
            for part in fragment.split("/")[1:]:
                found = _step(found, part.replace("~1", "/").replace("~0", "~"))
        if found is None:
            raise TooCostly("a reference in it cannot be followed")
        return [found]

    def _absolute(self, base: str, reference: str) -> tuple[str, str]:
        if reference.startswith("#"):  # `urljoin` forgets the base of a urn:
            return base, reference[1:]
        uri, fragment = urldefrag(urljoin(base, reference))
        return uri, fragment

    def _name(self, base: str, anchor: str, node: Any) -> None:
        # Which of two the validator would take is its own affair; counted must be what runs.
        if self._anchors.setdefault((base, anchor), node) is not node:
            raise TooCostly("it gives one $id or $anchor twice")
        if not anchor:
            self._resources[base] = node

    def _index(self, root: Any) -> None:
        waiting: list[tuple[Any, str, int]] = [(root, "", 0)]
        while waiting:
            node, base, nesting = waiting.pop()
            if nesting > 2 * MAX_NESTING:
                raise TooCostly(f"it is nested more than {MAX_NESTING} deep")
            if isinstance(node, dict):
                if isinstance(node.get(self._id), str):
                    base, anchor = self._absolute(base, node[self._id])
                    self._name(base, anchor, node)
                self._bases[id(node)] = base
                for keyword in ("$anchor", "$dynamicAnchor"):
                    if isinstance(node.get(keyword), str):
                        self._name(base, node[keyword], node)
                if isinstance(node.get("$dynamicAnchor"), str):
                    self._dynamic.setdefault(node["$dynamicAnchor"], []).append(node)
                if node.get("$recursiveAnchor") is True:
                    self._dynamic.setdefault("", []).append(node)
            parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            waiting += [(part, base, nesting + 1) for part in parts if isinstance(part, dict | list)]


def _own_work(node: dict[str, Any]) -> int:
    listed = sum(len(node[key]) for key in ("enum", "required") if isinstance(node.get(key), list))
    return 1 + listed + _PATTERN_WORK * (("pattern" in node) + len(node.get("patternProperties", ())))


def _parts(node: dict[str, Any], keywords: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for keyword in keywords:
        held = node.get(keyword)
        if isinstance(held, dict) and keyword in _NAMED:
            held = list(held.values())
        for part in held if isinstance(held, list) else [held]:
            if isinstance(part, dict):
                yield part


def _step(held: Any, part: str) -> Any:
    if isinstance(held, dict):
        return held.get(part)
    if isinstance(held, list) and part.isdigit() and int(part) < len(held):
        return held[int(part)]
    return None
