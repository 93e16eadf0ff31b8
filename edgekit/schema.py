"""Frozen dataclasses to and from plain data (JSON, TOML), strictly.

Own code rather than a validation library because running a bundle may need nothing but NumPy and one
vendor runtime. The reader accepts exactly the declared fields and types: an unknown key, a missing key,
a number where text is wanted or ``1.0`` where an integer is wanted is an error that names the path.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from edgekit.errors import EdgekitError, did_you_mean

T = TypeVar("T")


def decode(cls: type[T], data: object, *, error: type[EdgekitError], where: str) -> T:
    """Build the dataclass ``cls`` from plain data.

    Args:
        cls: A dataclass whose fields are bool, int, float, str, None, Literal, tuple[X, ...], dict[str, X],
            other dataclasses, or unions of these. A union takes the first member that fits.
        data: What a JSON or TOML parser returned.
        error: Class to raise.
        where: File name, the beginning of every ``where``.

    Raises:
        EdgekitError: of class ``error``; also when a dataclass refuses its values in ``__post_init__``.
    """
    try:
        return typing.cast(T, _decode(cls, data, ""))
    except _Misfit as misfit:
        raise error(
            misfit.message, where=f"{where}: {misfit.path or 'top level'}", hint=misfit.hint
        ) from None


def encode(value: object) -> Any:
    """Plain data for a dataclass: fields in order; left out are ``None`` and empty containers.

    So are fields with ``metadata={"later": True}`` that have their default: what was written before there
    was such a field keeps its one spelling.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: encode(v) for f, v in fields if not _is_default(f, v)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such number; the three names are read back by ``float()``.
        return str(value)
    return value


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    """Whether leaving the field out loses nothing, and may be done: it is empty, or came later."""
    may_be_left_out = value in (None, (), {}, "") or "later" in field.metadata
    return field.default is not dataclasses.MISSING and may_be_left_out and value == field.default


class _Misfit(Exception):
    def __init__(self, path: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.path, self.message, self.hint = path, message, hint


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(kind: Any, data: object, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data, path)
    if origin is typing.Literal:
        return _decode_literal(typing.get_args(kind), data, path)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, path)
    if origin in (dict, Mapping, typing.get_origin(Mapping[str, int])):
        return _decode_dict(typing.get_args(kind)[1], data, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, path)
    return _decode_scalar(kind, data, path)


def _decode_dataclass(cls: Any, data: object, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise _Misfit(path, f"want a table, got {_name(data)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            near = did_you_mean(str(key), fields)
            raise _Misfit(
                _join(path, str(key)),
                f"unknown key {key!r}: want {', '.join(fields)}",
                f"did you mean {near!r}?" if near else None,
            )
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(_hints(cls)[name], data[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _Misfit(path, f"the key {name!r} is missing")
    try:
        return cls(**values)
    except EdgekitError as refused:
        raise _Misfit(path, refused.message, refused.hint) from None


def _decode_union(kinds: tuple[Any, ...], data: object, path: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    misfits = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _decode(kind, data, path)
            except _Misfit as misfit:
                misfits.append(misfit)
    # The alternative that got furthest explains best.
    raise max(misfits, key=lambda m: len(m.path))


def _decode_literal(allowed: tuple[Any, ...], data: object, path: str) -> Any:
    if data in allowed and type(data) is type(allowed[allowed.index(data)]):
        return data
    near = did_you_mean(str(data), [str(a) for a in allowed])
    raise _Misfit(
        path,
        f"want one of {', '.join(map(repr, allowed))}, got {data!r}",
        f"did you mean {near!r}?" if near else None,
    )


def _decode_tuple(kinds: tuple[Any, ...], data: object, path: str) -> Any:
    if not isinstance(data, (list, tuple)):
        raise _Misfit(path, f"want a list, got {_name(data)}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_decode(kinds[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(data) != len(kinds):
        raise _Misfit(path, f"want a list of {len(kinds)}, got {len(data)} items")
    return tuple(
        _decode(k, item, f"{path}[{i}]") for i, (k, item) in enumerate(zip(kinds, data, strict=True))
    )


def _decode_dict(kind: Any, data: object, path: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise _Misfit(path, f"want a table, got {_name(data)}")
    return {str(key): _decode(kind, item, _join(path, str(key))) for key, item in data.items()}


def _decode_scalar(kind: Any, data: object, path: str) -> Any:
    if kind is Any or kind is object:
        return data
    if kind is float and (type(data) in (int, float) or data in ("nan", "inf", "-inf")):
        return float(typing.cast(float, data))
    if type(data) is kind:
        return data
    raise _Misfit(path, f"want {getattr(kind, '__name__', kind)}, got {_name(data)}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _name(data: object) -> str:
    text = repr(data)
    return f"{type(data).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
