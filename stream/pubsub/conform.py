"""Checks that a dataclass holds what its annotations promise, for values that came over a wire.

The annotations understood are str, int, float, bool, `X | None`, `Literal` of strings,
`dict[str, X]`, nested dataclasses, and `Annotated[X, Range(low, high)]`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from emostream.errors import EmostreamError


class MessageError(EmostreamError, ValueError):
    """A message, or a value meant for one, departs from the wire contract."""


@dataclass(frozen=True, slots=True)
class Range:
    """Closed interval that a number must lie in."""

    low: float
    high: float = math.inf


_Built = TypeVar("_Built")


def build(cls: type[_Built], raw: dict[Any, Any]) -> _Built:
    """Construct a dataclass, nested ones too, from decoded fields; unknown fields are ignored.

    Types and ranges are checked by the constructors, which call `check`.

    Raises:
        MessageError: a field is missing, or a constructor refuses.
    """
    values: dict[str, Any] = {}
    hints = _hints(cls)
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
        if not spec.init:
            continue
        if spec.name not in raw:
            raise MessageError(f"{cls.__name__}: field {spec.name} is missing")
        value, hint = raw[spec.name], hints[spec.name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise MessageError(
                    f"{cls.__name__}.{spec.name} must be an object; got {value!r:.100}"
                )
            value = build(typing.cast(type, hint), value)
        values[spec.name] = value
    return cls(**values)


@cache
def _cached_hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _hints(cls: Any) -> dict[str, Any]:
    return _cached_hints(cls)


def check(value: Any) -> None:
    """Check every field of a dataclass against its annotation; integers become floats where due.

    Raises:
        MessageError: a field has another type or lies outside its range, or a number is not finite.
    """
    cls = type(value)
    for name, hint in _hints(cls).items():
        found = getattr(value, name)
        kept = _conform(hint, found, f"{cls.__name__}.{name}")
        if kept is not found:
            object.__setattr__(value, name, kept)


def _conform(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _conform(args[0], value, where)
        bounds: Range = args[1]
        if not bounds.low <= value <= bounds.high:
            raise MessageError(f"{where} must be in [{bounds.low}, {bounds.high}]; got {value}")
        return value
    if origin is types.UnionType:
        return None if value is None else _conform(args[0], value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            raise MessageError(f"{where} must be one of {', '.join(args)}; got {value!r:.100}")
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise MessageError(f"{where} must be an object; got {value!r:.100}")
        return {
            _conform(str, key, f"{where} key"): _conform(args[1], item, f"{where}[{key!r:.100}]")
            for key, item in value.items()
        }
    if hint is float:
        return _conform_float(value, where)
    # bool is an int to Python, but not to the wire.
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise MessageError(f"{where} must be {hint.__name__}; got {value!r:.100}")
    if hint is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise MessageError(f"{where} must be valid Unicode; it has a lone surrogate") from error
    return value


def _conform_float(value: Any, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise MessageError(f"{where} must be a number; got {value!r:.100} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError as error:
        raise MessageError(f"{where} must be a finite number; got a huge integer") from error
    if not math.isfinite(number):
        raise MessageError(f"{where} must be a finite number; got {number}")
    return number
