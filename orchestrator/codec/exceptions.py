"""Exceptions as data and back: class name, text, args, attributes, notes, cause, parts of a group. Never a stack.

On the way back the class is looked up among the exception classes that are loaded already and made without `__init__`;
where there is none, or where it could not say its text any more, a `RemoteError` stands in for it. Whether it could is
tried out by the writer, which has the original, so that a reader runs none of the class's own code.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from orchestrator.codec import tags
from orchestrator.codec.schema import issues_of
from orchestrator.codec.tags import NotEncodable
from orchestrator.errors import OrchestratorError, RemoteError

MAX_TYPE_NAME = 500  # characters of the name of a class, with its module
_STACKS = frozenset({"stack", "stacktrace", "stack_trace", "traceback"})
# What process pools put in place of a cause: its text is nothing but the other process's traceback.
_STACK_CARRIERS = frozenset({"_RemoteTraceback", "RemoteTraceback"})

_Member = MemberDescriptorType | GetSetDescriptorType


# -- writing ----------------------------------------------------------------------------------------------------------


def describe(error: BaseException, plain: Callable[[Any], Any], reread: Callable[[Any], Any]) -> dict[str, Any]:
    """The exception as an object of plain values and tags.

    Args:
        plain: makes one part plain, or raises `NotEncodable`; such a part is left out.
        reread: gives the value that a reader makes of a plain part.
    """
    if isinstance(error, RemoteError):
        data = _describe_stand_in(error, plain)
    elif isinstance(error, ValidationError):
        data = _describe_validation_error(error, plain)
    elif isinstance(error, BaseExceptionGroup):
        data = _describe_group(error, plain)
    else:
        data = _describe_own(error, plain)
        _try_out(data, reread)
    notes = [str.__str__(note) for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    if notes:
        data["notes"] = plain(notes)
    return data | _describe_origin(error, plain)


def _describe_own(error: BaseException, plain: Callable[[Any], Any]) -> dict[str, Any]:
    described = {"type": qualified_name(type(error)), "message": plain(_full_text(error))}
    args = [_plain_arg(arg, plain) for arg in error.args]
    attributes = _plain_attributes(_attributes(error), plain)
    return described | ({"args": args} if args else {}) | ({"attributes": attributes} if attributes else {})


def _describe_stand_in(error: RemoteError, plain: Callable[[Any], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"type": _short_enough(error.name), "message": plain(error.message)}
    attributes = _plain_attributes(error.attributes, plain)
    if attributes:
        described["attributes"] = attributes
    if loaded_class(error.name) is not None:  # it stands in although the class is here: so it was meant
        described["stand_in"] = True
    return described


def _describe_validation_error(error: ValidationError, plain: Callable[[Any], Any]) -> dict[str, Any]:
    # Its class cannot be made without pydantic's help.
    return {
        "type": qualified_name(type(error)),
        "message": plain(_text(error)),
        "attributes": {"issues": {tags.TUPLE: [plain(issue) for issue in issues_of(error)]}},
        "stand_in": True,
    }


def _describe_group(error: BaseExceptionGroup[Any], plain: Callable[[Any], Any]) -> dict[str, Any]:
    # Every part comes back as an Exception, so a group of more than that can be an ordinary one.
    kind = type(error) if isinstance(error, Exception) else ExceptionGroup
    described: dict[str, Any] = {"type": qualified_name(kind), "message": plain(_text(error))}
    parts = [written for part in error.exceptions if (written := _plain_or_none(part, plain)) is not None]
    if parts:
        described["group"] = {"message": plain(error.message), "parts": parts}
    attributes = _plain_attributes(_attributes(error), plain)
    if attributes:
        described["attributes"] = attributes
    return described


def _describe_origin(error: BaseException, plain: Callable[[Any], Any]) -> dict[str, Any]:
    key, origin = _origin(error)
    written = None if origin is None else _plain_or_none(origin, plain)
    return {} if written is None else {key: written}


def _origin(error: BaseException) -> tuple[str, BaseException | None]:
    """The exception behind this one: its cause, else its context unless suppressed.

    A carrier of another process's stack does not count as a cause.
    """
    cause = error.__cause__
    if cause is not None and type(cause).__name__ not in _STACK_CARRIERS:
        return "cause", cause
    return "context", None if error.__suppress_context__ else error.__context__


def _plain_or_none(part: Any, plain: Callable[[Any], Any]) -> Any:
    try:
        return plain(part)
    except NotEncodable:
        return None


def _plain_arg(arg: Any, plain: Callable[[Any], Any]) -> Any:
    try:
        return _plain_member(arg, plain)
    except NotEncodable:
        return plain(_text(arg))


def _plain_attributes(attributes: Mapping[str, Any], plain: Callable[[Any], Any]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, value in attributes.items():
        try:
            written[str(name)] = _plain_member(value, plain)
        except NotEncodable:
            continue
    return _escape_tags(written) if len(written) == 1 else written


def _plain_member(value: Any, plain: Callable[[Any], Any]) -> Any:
    return {tags.TUPLE: [_plain_member(item, plain) for item in value]} if type(value) is tuple else plain(value)


def _escape_tags(tree: dict[str, Any]) -> dict[str, Any]:
    return {f"${key}" if key.startswith("$") else key: value for key, value in tree.items()}


def _text(value: Any) -> str:
    if isinstance(value, ValidationError):
        return _validation_text(value)
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001 - an exception that cannot say its text must not hide what happened
        return f"<{type(value).__qualname__} without text>"


def _full_text(error: BaseException) -> str:
    """The text of an exception; the name of an exit or an interrupt before it, whose own text is a bare number.

    What comes back of these is a stand-in: its class does not say it either.
    """
    text, name = _text(error), type(error).__name__
    return text if isinstance(error, Exception) else f"{name}: {text}" if text else name


def _validation_text(error: ValidationError) -> str:
    """Like pydantic's own, which quotes the input: that may hold secrets."""
    issues = issues_of(error)
    header = f"{len(issues)} validation error{'s' * (len(issues) != 1)} for {error.title}:"
    return "\n".join([header, *(f"- {issue}" for issue in issues)])


def _try_out(data: dict[str, Any], reread: Callable[[Any], Any]) -> None:
    """Choose args with which the rebuilt exception has the same text; choose a stand-in where it could have none."""
    message = reread(data["message"])
    args = data.get("args")
    for attempt in (args, [data["message"]]):
        said = _text_once_rebuilt({**data, "args": attempt or []}, reread)
        if said == message:
            data["args"] = attempt or []
            return
        if said is None:
            data["stand_in"] = True
            return


def _text_once_rebuilt(data: dict[str, Any], reread: Callable[[Any], Any]) -> str | None:
    try:
        return str(rebuild(reread(data)))
    except Exception:  # noqa: BLE001 - a text that needs what was left out
        return None


# -- reading ----------------------------------------------------------------------------------------------------------


def rebuild(data: Mapping[str, Any]) -> Exception:
    """The exception that `describe` described, or its stand-in."""
    cls = None if data.get("stand_in") else loaded_class(data["type"])
    made = _make(cls, data) if cls is not None else None
    if made is None:
        made = _stand_in(data)
    if data.get("notes"):
        vars(made)["__notes__"] = list(data["notes"])
    for key in ("cause", "context"):
        if isinstance(data.get(key), BaseException):
            # Past the class's own __setattr__, which may refuse (a frozen dataclass does).
            object.__setattr__(made, f"__{key}__", data[key])
    return made


def _make(cls: type[Exception], data: Mapping[str, Any]) -> Exception | None:
    try:
        made = _make_without_init(cls, data.get("group"))
        if "args" in data:
            vars(BaseException)["args"].__set__(made, tuple(data["args"]))
        members = _members(cls)
        for name, value in data.get("attributes", {}).items():
            if name not in members:
                vars(made)[name] = value
            else:
                _set_member(made, members[name], value)
    except Exception:  # noqa: BLE001 - a class made in C may refuse in any way
        return None
    return made


def _set_member(made: Exception, member: _Member, value: Any) -> None:
    try:
        member.__set__(made, value)
    except (AttributeError, TypeError, ValueError):
        return  # read-only, or typed in C


def _make_without_init(cls: type[Exception], group: Mapping[str, Any] | None) -> Exception:
    """An instance from the nearest `__new__` that is written in C: no `__init__` runs, nor a `__new__` in Python."""
    arguments = () if group is None else (group["message"], group["parts"])
    for base in cls.__mro__:
        new = vars(base).get("__new__")
        if isinstance(new, BuiltinMethodType):
            made = new(cls, *arguments)
            if isinstance(made, Exception):
                return made
    raise TypeError(f"{cls.__qualname__} cannot be made")


def _stand_in(data: Mapping[str, Any]) -> RemoteError:
    attributes = dict(data.get("attributes", {}))
    if "group" in data:
        attributes["exceptions"] = tuple(data["group"]["parts"])
    return RemoteError(data["message"], name=data["type"], attributes=attributes)


def qualified_name(cls: type) -> str:
    """`module.Class`, cut if it is very long; only the class's name for Python's own."""
    return _short_enough(cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}")


def _short_enough(name: str) -> str:
    return name if len(name) <= MAX_TYPE_NAME else f"{name[: MAX_TYPE_NAME - 1]}…"


def loaded_class(name: str) -> type[Exception] | None:
    """The exception class of this qualified name, if it is loaded in this process. Imports nothing."""
    # A name that was cut is nobody's, and the time of the search grows with the square of its length.
    if len(name) > MAX_TYPE_NAME or name.endswith("…"):
        return None
    return _class_in_modules(name) or _class_in_tree(name)


def _class_in_modules(name: str) -> type[Exception] | None:
    words = name.split(".")
    for split in range(len(words) - 1, 0, -1):
        module = sys.modules.get(".".join(words[:split]))
        if isinstance(module, ModuleType):
            return _class_in(_namespace(module), words[split:], name)
    return _class_in(vars(builtins), words, name)


def _namespace(module: ModuleType) -> dict[str, Any]:
    # vars() would load a module that waits to be imported lazily.
    namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return namespace


def _class_in(namespace: Mapping[str, Any], words: list[str], name: str) -> type[Exception] | None:
    # Through the namespaces alone: a module's __getattr__ could import.
    found: Any = None
    for word in words:
        found = namespace.get(word)
        if not isinstance(found, type):
            return None
        namespace = vars(found)
    return found if issubclass(found, Exception) and qualified_name(found) == name else None


def _class_in_tree(name: str) -> type[Exception] | None:
    """Classes that no module's namespace shows: those made in functions. Of several the one that was made last."""
    last = None
    for cls in _subclasses(Exception):
        if qualified_name(cls) == name:
            last = cls
    return last


def _subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    seen: set[type[Exception]] = {root}
    queue = [root]
    for cls in queue:
        yield cls
        fresh = [sub for sub in type.__subclasses__(cls) if sub not in seen]
        seen.update(fresh)
        queue += fresh


# -- both -------------------------------------------------------------------------------------------------------------


def _members(cls: type[BaseException]) -> dict[str, _Member]:
    """The places outside its `__dict__` where an exception keeps values: slots, and the fields of those made in C."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        if base not in (object, BaseException, BaseExceptionGroup)
        for name, member in vars(base).items()
        if isinstance(member, _Member) and not name.startswith("__")
    }


def _attributes(error: BaseException) -> dict[str, Any]:
    """The values that the exception carries, by name, without notes and stacks."""
    found: dict[str, Any] = {}
    for name, member in _members(type(error)).items():
        try:
            value = member.__get__(error, type(error))
        except Exception:  # noqa: BLE001 - an empty slot, or a field of a foreign library that cannot be read now
            continue
        if value is not None or member.__objclass__.__module__ != "builtins":  # those in C have None by themselves
            found[name] = value
    if isinstance(error, AttributeError | NameError):
        found.pop("obj", None)  # the whole object that lacks the name
    found.update(vars(error))
    return {name: value for name, value in found.items() if name != "__notes__" and name not in _STACKS}


# -- showing ----------------------------------------------------------------------------------------------------------


def error_to_dict(error: BaseException) -> dict[str, Any]:
    """The exception for a reader without Python, in plain JSON shapes and without its stack.

    Returns:
        `name` (the class's name) and `message`; beside them its attributes (those with a JSON form and no leading
        underscore); and, where there are any, `cause` (the same again), `exceptions` (of a group) and `notes`.
    """
    return _show(error, ())


def _show(error: BaseException, outer: tuple[int, ...]) -> dict[str, Any]:
    inside = (*outer, id(error))
    shown: dict[str, Any] = {"name": _short_name(error), "message": _text(error)}
    if isinstance(error, OrchestratorError) and not isinstance(error, RemoteError):
        shown["code"] = error.code
    for name, value in _visible_attributes(error).items():
        if not name.startswith("_") and name not in ("name", "message", "cause"):
            _show_into(shown, name, value, inside)
    if isinstance(error, BaseExceptionGroup):
        shown["exceptions"] = [_show(part, inside) for part in error.exceptions if _may_enter(part, inside)]
    if notes := [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]:
        shown["notes"] = notes
    _, origin = _origin(error)
    if origin is not None and _may_enter(origin, inside):
        shown["cause"] = _show(origin, inside)
    return shown


def _may_enter(error: BaseException, inside: tuple[int, ...]) -> bool:
    return id(error) not in inside and len(inside) < tags.MAX_NESTED_ERRORS


def _visible_attributes(error: BaseException) -> Mapping[str, Any]:
    if isinstance(error, RemoteError):
        return error.attributes
    return {"issues": issues_of(error)} if isinstance(error, ValidationError) else _attributes(error)


def _short_name(error: BaseException) -> str:
    name = error.name if isinstance(error, RemoteError) and error.name else type(error).__name__
    return name.rpartition(".")[2]


def _show_into(shown: dict[str, Any], name: str, value: Any, inside: tuple[int, ...]) -> None:
    def show_unknown(part: Any) -> Any:
        if isinstance(part, BaseException) and _may_enter(part, inside):
            return _show(part, inside)
        raise NotEncodable("has no plain form")

    try:
        text = to_json(value, by_alias=False, bytes_mode="base64", inf_nan_mode="strings", fallback=show_unknown)
        shown[name] = from_json(text)
    except Exception:  # noqa: BLE001 - a view leaves out what it cannot show
        return
