"""How options are declared: a frozen dataclass whose fields carry type, range and help.

The command line, the API's schema and the checks are made from the declaration. Ranges are pydantic's, so that
pydantic checks them everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from service.core.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Declaration = TypeVar("_Declaration", bound="DataclassInstance")
_Request = TypeVar("_Request", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ServedUpTo:
    """The upper end of an option's range in the API, where one request must not occupy a worker endlessly."""

    most: float


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option.

    Attributes:
        type: of its values; an enumeration is given by its values.
        annotation: the type with its range.
        help: what it means; its first sentence is enough for a list of options.
        most_served: the upper end of its range in the API; None where its own range is enough.
    """

    name: str
    type: Any
    annotation: Any
    help: str
    most_served: float | None

    @property
    def summary(self) -> str:
        """The first sentence of its help."""
        return self.help.partition(". ")[0].removesuffix(".") + "."


@cache
def declared(declaration: type[DataclassInstance]) -> Mapping[str, Option]:
    """Name → option, in the order of their declaration."""
    hints = get_type_hints(declaration, include_extras=True)
    return {field.name: _option(field.name, hints[field.name]) for field in fields(declaration)}


def _option(name: str, hint: Any) -> Option:
    parts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind, metadata = parts[0], parts[1:]
    if isinstance(kind, type) and issubclass(kind, Enum):
        kind = Literal[tuple(member.value for member in kind)]
    texts = [entry.description for entry in metadata if isinstance(entry, FieldInfo) and entry.description]
    served = [entry.most for entry in metadata if isinstance(entry, ServedUpTo)]
    limits = [
        limit
        for entry in metadata
        if not isinstance(entry, ServedUpTo)
        for limit in (entry.metadata if isinstance(entry, FieldInfo) else [entry])
    ]
    annotation = Annotated[(kind, *limits)] if limits else kind
    return Option(name, kind, annotation, " ".join(texts), served[0] if served else None)


def choose(
    declaration: type[_Declaration],
    what: str,
    *layers: Mapping[str, Any],
    check: Callable[[_Declaration], list[str]] | None = None,
) -> _Declaration:
    """Take the defaults, over them the values of each layer in turn.

    Args:
        what: the options' name in messages, such as "training options".
        layers: option → value.
        check: finds what is wrong with the values together; defaults stand for those that cannot be.

    Raises:
        UsageError: naming every unknown option and every value that cannot be.
    """
    merged = {name: value for layer in layers for name, value in layer.items()}
    known = declared(declaration)
    problems, found = [], None
    if unknown := sorted(merged.keys() - known):
        problems.append(f"unknown {what} {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    values = {name: value for name, value in merged.items() if name in known}
    try:
        found = _adapter(declaration).validate_python(values)
    except ValidationError as error:
        wrong = {entry["loc"][0]: f"{entry['input']!r}; {reason(entry)}" for entry in error.errors()}
        problems += [f"{name} is {what_is_wrong}" for name, what_is_wrong in wrong.items()]
        values = {name: value for name, value in values.items() if name not in wrong}
    if check is not None:
        problems += check(found if found is not None else _adapter(declaration).validate_python(values))
    if found is None or problems:
        raise UsageError(problems, f"The {what} cannot be used")
    return found  # type: ignore[no-any-return]


@cache
def _adapter(declaration: type[DataclassInstance]) -> TypeAdapter[Any]:
    return TypeAdapter(declaration)


_REASONS = {
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be above {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be below {lt}",
    "finite_number": "it must be a finite number",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "float_parsing": "it must be a number",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "float_type": "it must be a number",
    "string_type": "it must be text",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "dict_type": "it must be an object with names and values",
    "model_type": "it must be an object with names and values",
    "model_attributes_type": "it must be an object with names and values",
    "dataclass_type": "it must be an object with names and values",
    "missing": "it is required",
    "extra_forbidden": "there is no such field",
    "unexpected_keyword_argument": "there is no such field",
    "string_too_short": "it must have at least {min_length} characters",
    "string_too_long": "it must have at most {max_length} characters",
    "too_short": "it must have at least {min_length} entries",
    "too_long": "it must have at most {max_length} entries",
    "string_pattern_mismatch": "it must match {pattern}",
}


def reason(entry: Mapping[str, Any]) -> str:
    """What would be right, from an entry of pydantic's `ValidationError.errors()`."""
    if entry["type"] in _REASONS:
        limits = {name: _plain(value) for name, value in entry.get("ctx", {}).items()}
        return _REASONS[entry["type"]].format(**limits)
    message = str(entry["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "it must be") if message.startswith("Input") else message


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value; None means not chosen."""
    return {name: value for name, value in options.items() if value is not None}


def with_options(options: Mapping[str, Option]) -> Callable[[type[_Request]], type[_Request]]:
    """Extend a request by a field for every option, which is None where it was not chosen.

    A field that the request declares itself stays as it is.
    """

    def extend(request: type[_Request]) -> type[_Request]:
        added: dict[str, Any] = {
            name: (_optional(option), None) for name, option in options.items() if name not in request.model_fields
        }
        return create_model(
            request.__name__, __base__=request, __doc__=request.__doc__, __module__=request.__module__, **added
        )

    return extend


def _optional(option: Option) -> Any:
    kind = option.annotation
    if option.most_served is not None:
        kind = Annotated[kind, Field(le=option.most_served)]
    return Annotated[kind | NoneType, Field(description=option.help)]
