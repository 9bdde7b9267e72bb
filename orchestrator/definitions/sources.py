"""Mappings: a source for each key of the output, from which its value comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

from orchestrator.codec import ANY, DictOf, Shape, Typed, is_any_annotation, shape_at
from orchestrator.definitions import templates
from orchestrator.definitions.callables import Callback, name_of
from orchestrator.definitions.entry import WorkflowEntry
from orchestrator.definitions.foreign import is_foreign, last_part, name_in_app
from orchestrator.definitions.map_scope import MapScope
from orchestrator.definitions.paths import read_path, require_text

_SHOWN = 1000  # characters of a template in a description


Caller = Callable[[Callback], Any]  # calls a callback with the scope's data and context, and waits for it


@dataclass(frozen=True, slots=True)
class Known:
    """The types that are known where a mapping stands."""

    # Of the steps' results, by id.
    results: Mapping[str, Shape]
    # Of the workflow's input.
    init: Shape


@dataclass(frozen=True, slots=True)
class FromStep:
    """The output of the first of these steps that has one."""

    # Ids.
    steps: tuple[str, ...]
    # The declared types of their outputs, None where not known.
    outputs: tuple[Any, ...]
    # Dotted, into the output.
    path: str

    def read(self, scope: MapScope, call: Caller) -> Any:
        """The part at the path. ValueError where no step has succeeded, or the path leads nowhere."""
        succeeded = ""
        for step_id in self.steps:
            found, value = scope.result(step_id)
            if found and value is not None:
                return read_path(value, self.path, f"step {step_id!r}")
            succeeded = succeeded or (step_id if found else "")
        if succeeded:
            return read_path(None, self.path, f"step {succeeded!r}")
        names = " or ".join(repr(step_id) for step_id in self.steps)
        raise ValueError(f"Invalid path {self.path!r} in step {names}: it has no result")

    def shape(self, known: Known) -> Shape:
        """The declared type at the path."""
        pairs = zip(self.steps, self.outputs, strict=True)
        found = [_part_shape(known.results.get(step_id) or shape_of(output), self.path) for step_id, output in pairs]
        return union_of(*found)

    def __str__(self) -> str:
        return f"step {' or '.join(self.steps)}{_suffix(self.path)}"


@dataclass(frozen=True, slots=True)
class FromInput:
    """The input of this workflow, or of one around it."""

    # Dotted, into the input.
    path: str
    # The one around, None for this workflow.
    workflow_id: str | None
    # The declared input of the one around.
    annotation: Any

    def read(self, scope: MapScope, call: Caller) -> Any:
        """The part at the path. ValueError where it leads nowhere."""
        whose = "the input" if self.workflow_id is None else f"the input of workflow {self.workflow_id!r}"
        return read_path(scope.init(self.workflow_id), self.path, whose)

    def shape(self, known: Known) -> Shape:
        """The declared type at the path."""
        return _part_shape(known.init if self.workflow_id is None else shape_of(self.annotation), self.path)

    def __str__(self) -> str:
        return f"input{'' if self.workflow_id is None else ' of ' + self.workflow_id}{_suffix(self.path)}"


@dataclass(frozen=True, slots=True)
class FromContext:
    """A key of the request context; None where it is missing."""

    key: str

    def read(self, scope: MapScope, call: Caller) -> Any:
        """The key's value."""
        return scope.context.get(self.key)

    def shape(self, known: Known) -> Shape:
        """Nothing is declared of a request context."""
        return ANY

    def __str__(self) -> str:
        return f"context {self.key}"


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same value."""

    value: Any

    def read(self, scope: MapScope, call: Caller) -> Any:
        """The value."""
        return self.value

    def shape(self, known: Known) -> Shape:
        """Nothing is declared of a constant."""
        return ANY

    def __str__(self) -> str:
        return _shorten(f"constant {self.value!r}")


@dataclass(frozen=True, slots=True)
class FromTemplate:
    """A text with placeholders."""

    template: templates.Template

    def read(self, scope: MapScope, call: Caller) -> Any:
        """The text, filled in. ValueError where a placeholder names a step without a result."""
        return self.template.render(scope)

    def shape(self, known: Known) -> Shape:
        """A text needs no type."""
        return ANY

    def __str__(self) -> str:
        return _shorten(f"template {self.template.text}")


@dataclass(frozen=True, slots=True)
class Computed:
    """The value that a function returns."""

    callback: Callback

    def read(self, scope: MapScope, call: Caller) -> Any:
        """Call the function; return or raise what it does."""
        return call(self.callback)

    def shape(self, known: Known) -> Shape:
        """A function in a mapping declares nothing."""
        return ANY

    def __str__(self) -> str:
        return f"function {self.callback.name}"


Source: TypeAlias = FromStep | FromInput | FromContext | Constant | FromTemplate | Computed


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A mapping: one source or function for the whole output, or a source for each key of it."""

    # None where `targets` say it.
    whole: Source | None
    # The keys of the output, in order.
    targets: tuple[tuple[str, Source], ...] = ()

    def evaluate(self, scope: MapScope, call: Caller) -> Any:
        """The mapping's output. `call` calls a callback and waits for it.

        Raises ValueError for a source that leads nowhere, and whatever a function raises. A repeat asks again.
        """
        if self.whole is not None:
            return self.whole.read(scope, call)
        return {key: source.read(scope, call) for key, source in self.targets}

    def shape(self, known: Known) -> Shape:
        """The shape of its output."""
        if self.whole is not None:
            return self.whole.shape(known)
        return DictOf({key: source.shape(known) for key, source in self.targets})

    def describe(self) -> dict[str, str] | str:
        """The source of the whole, or each key's, in words; long texts are cut."""
        return str(self.whole) if self.whole is not None else {key: str(source) for key, source in self.targets}


def from_step(step: Any, path: str = "") -> FromStep:
    """The output of a step of the same workflow, or the part of it at a dotted path ("" or "." for all of it).

    `step` is a step, a nested workflow, a Celery task or an id, or a list of them: then the first in the list that has
    a result other than None is taken. An id that no entry of the workflow has is a problem for `commit`. At run time it
    is a ValueError if none has succeeded, or the path leads through something that has no parts; a last key that is
    missing gives None.
    """
    _check_path("from_step", path)
    steps = tuple(step) if isinstance(step, (list, tuple)) else (step,)
    if not steps:
        raise TypeError("from_step() needs a step")
    return FromStep(tuple(map(_id_of, steps)), tuple(getattr(each, "output", None) for each in steps), path)


def from_input(path: str = "", *, workflow: WorkflowEntry[Any] | str | None = None) -> FromInput:
    """The input of the workflow in which the mapping stands, or the part of it at a dotted path.

    `workflow`: an outer workflow (or its id) whose input is meant instead.
    """
    _check_path("from_input", path)
    if workflow is None or isinstance(workflow, str):
        return FromInput(path, workflow, None)
    return FromInput(path, workflow.id, workflow.input)


def from_context(key: str) -> FromContext:
    """The value of a key of the request context; None where it is missing."""
    return FromContext(require_text(key, "from_context() takes a key"))


def constant(value: Any) -> Constant:
    """Always this value, which must have a JSON form."""
    return Constant(value)


def template(text: str) -> FromTemplate:
    """A text with placeholders: `${input.…} ${init.…} ${state.…} ${context.…} ${steps.<id>.…}`.

    `input` is the value that arrives at the mapping, `init` the workflow's input. What is None or missing is filled in
    as nothing; dicts, lists and models as compact JSON. At run time it is a ValueError if a step has no result.

    Raises `TemplateInvalid` (a `GraphInvalid` and ValueError) for an empty or padded placeholder, an unknown scope, and
    `steps` or `context` without a name.
    """
    return FromTemplate(templates.parse(text))


def map_spec(given: Any) -> MapSpec:
    """The mapping that `.map()` was given. TypeError names the key whose value is no source."""
    if isinstance(given, Mapping) and not is_foreign(given):
        return MapSpec(None, tuple((_key(key), _source(key, value)) for key, value in given.items()))
    if isinstance(given, _SOURCES):
        return MapSpec(given)
    _refuse_entries(".map()", given, ".then()")
    return MapSpec(Computed(Callback(given)))


def _source(key: str, value: Any) -> Source:
    if isinstance(value, _SOURCES):
        return value
    _refuse_entries(f"the map target {key!r}", value, "from_step()")
    if callable(value):
        return Computed(Callback(value))
    raise TypeError(
        f"the map target {key!r} is {value!r}, which is no source: use from_step, from_input, from_context, constant, "
        "template or a function"
    )


_SOURCES = (FromStep, FromInput, FromContext, Constant, FromTemplate, Computed)


def _refuse_entries(what: str, value: Any, remedy: str) -> None:
    if is_foreign(value) or isinstance(getattr(value, "component", None), str):
        raise TypeError(f"{what} is an entry, not a function: did you mean {remedy}?")
    if not callable(value) and what == ".map()":
        raise TypeError(f".map() takes a function, a source or a dict of sources, not {value!r}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the map target {key!r} is not a text")
    return key


def _check_path(what: str, path: Any) -> None:
    if not isinstance(path, str):
        raise TypeError(f"{what}() takes a dotted path, not {path!r}")


def _id_of(step: Any) -> str:
    if isinstance(step, str):
        return step
    if is_foreign(step):
        return last_part(name_in_app(step))
    found = getattr(step, "id", None)
    if isinstance(found, str):
        return found
    if callable(step) and re.fullmatch(r"\w+", name_of(step)):
        return name_of(step)
    raise TypeError(f"from_step() takes a step or its id, not {step!r}")


def shape_of(annotation: Any) -> Shape:
    """An annotation as a shape; `ANY` for None."""
    return ANY if annotation is None or is_any_annotation(annotation) else Typed(annotation)


def union_of(*shapes: Shape) -> Shape:
    """The shape of a value that has one of these shapes."""
    different = [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    if len(different) == 1:
        return different[0]
    annotations = [shape.annotation for shape in different if isinstance(shape, Typed)]
    if len(annotations) != len(different):
        return ANY
    return Typed(Union[tuple(annotations)])  # noqa: UP007 - a union of what is only known now


def _part_shape(shape: Shape, path: str) -> Shape:
    return shape_at(shape, "" if path == "." else path)


def _suffix(path: str) -> str:
    return "" if path in ("", ".") else f" at {path}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
