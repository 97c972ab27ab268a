"""Judging a request's body or query by its model; pydantic's verdicts in our words. The models hold no other models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from rollout.spec.faults import Faults, Place, Refused, shown, unknown_key, unknown_word

Model = TypeVar("Model", bound=BaseModel)

# how pydantic's names of errors begin → what it wanted
_WANTED = (
    ("model_", "a mapping"), ("dict_", "a mapping"), ("tuple_", "a list"), ("list_", "a list"),
    ("int_", "a whole number"), ("float_", "a number"), ("bool_", "true or false"),
)  # fmt: skip


def judge(model: type[Model], raw: object, place: Place, faults: Faults) -> Model | None:
    """What was asked, or None with its faults added."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            refused = _refused(one, model)
            faults.add((*place, *one["loc"]), refused.message, refused.hint)
        return None


def _refused(error: Mapping[str, Any], model: type[BaseModel]) -> Refused:
    kind, value, context, at = error["type"], error["input"], error.get("ctx", {}), error["loc"]
    if kind == "extra_forbidden":
        return unknown_key(at[-1], model.model_fields)
    if kind == "missing":
        return Refused("is missing")
    if kind == "literal_error":
        return unknown_word(value, tuple(_words_in(model.model_fields[at[0]].annotation)))
    if kind == "value_error":  # said by one of our own rules
        return Refused(str(context["error"]))
    if kind == "greater_than_equal":
        return Refused(f"must be at least {context['ge']:g}, not {shown(value)}")
    if kind == "less_than_equal":
        return Refused(f"must be at most {context['le']:g}, not {shown(value)}")
    for start, wanted in _WANTED:
        if kind.startswith(start):
            return Refused(f"must be {wanted}, not {shown(value)}")
    return Refused("keys must be words" if kind == "invalid_key" else f"{shown(value)} is not allowed here")


def _words_in(annotation: Any) -> Iterator[str]:
    """The words of the `Literal` in a field's type, however it is wrapped."""
    if isinstance(annotation, str):
        yield annotation
    for inner in get_args(annotation):
        yield from _words_in(inner)
