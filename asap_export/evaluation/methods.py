"""Methods by name: ``asap``, ``asap-text``, ``fastv``, ``asap:lambda_max=0.25:merge=no``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig, Score

__all__ = ["METHODS", "NamedMethod", "parse_methods"]

METHODS: dict[str, PruningConfig] = {
    "dense": PruningConfig(method="none"),
    "asap": PruningConfig(),
    "asap-received": PruningConfig(score="received"),
    "asap-salience": PruningConfig(score="salience"),
    "asap-text": PruningConfig(score="text"),
    "asap-last": PruningConfig(score="last"),
    "asap-no-merge": PruningConfig(merge=False),
    "asap-no-mask": PruningConfig(bidirectional=False),
    "fastv": PruningConfig(method="fastv"),
    "random": PruningConfig(method="random"),
}

# Which parameters change what a method does; any other would do nothing.
_PARAMETERS = {
    "asap": ("score", "lambda_max", "threshold", "prune_after", "merge", "mask"),
    "fastv": ("prune_after",),
    "random": ("prune_after", "seed"),
    "none": (),
}


@dataclass(frozen=True)
class NamedMethod:
    """A method as it was asked for, and what it means."""

    label: str
    pruning: PruningConfig


def parse_methods(text: str) -> tuple[NamedMethod, ...]:
    """The methods of a list like ``dense,asap,asap:score=text:merge=no``, commas between methods, colons before
    parameters.

    Raises UserError where one is unknown or named twice, and for a parameter that is unknown, has no such value
    or would do nothing.
    """
    labels = [word.strip() for word in text.split(",") if word.strip()]
    if not labels:
        raise UserError(f"expected methods among {', '.join(METHODS)}, found none; name one")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"expected each method once, found {twice} twice; leave one out")
    return tuple(_method(label) for label in labels)


def _method(label: str) -> NamedMethod:
    word, *parameters = label.split(":")
    if word not in METHODS:
        raise UserError(f"expected methods among {', '.join(METHODS)}, found {word!r}; correct it")
    pruning = METHODS[word]
    known = _PARAMETERS[pruning.method]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UserError(f"expected of {word} a parameter among {listed}, found {name!r}; correct it")
        pruning = replace(pruning, **_changed(name, value))
    names = {parameter.partition("=")[0] for parameter in parameters}
    for name, switch, idle in (
        ("lambda_max", "mask", not pruning.bidirectional),
        ("threshold", "merge", not pruning.merge),
    ):
        if name in names and idle:
            raise UserError(f"expected no {name} with {switch}=no in {label}, found one; it would do nothing")
    return NamedMethod(label, pruning)


def _changed(name: str, value: str) -> dict[str, Any]:
    """A field of the configuration and its new value."""
    kinds: dict[str, tuple[str, Callable[[str], Any], str]] = {
        "score": ("score", _choice(*get_args(Score)), f"one of {', '.join(get_args(Score))}"),
        "lambda_max": ("lambda_max", float, "a number"),
        "threshold": ("threshold", float, "a number"),
        "prune_after": ("prune_after", int, "a whole number"),
        "seed": ("seed", int, "a whole number"),
        "merge": ("merge", _yes_or_no, "yes or no"),
        "mask": ("bidirectional", _yes_or_no, "yes or no"),
    }
    field, read, wanted = kinds[name]
    try:
        return {field: read(value)}
    except ValueError as error:
        raise UserError(f"expected {wanted} for {name}, found {value!r}; correct it") from error


def _choice(*words: str) -> Callable[[str], str]:
    return lambda value: words[words.index(value)]


def _yes_or_no(value: str) -> bool:
    return (False, True)[("no", "yes").index(value)]
