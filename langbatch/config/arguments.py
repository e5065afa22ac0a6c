"""Arguments and variables as people give them: empty ones, two that mean the same, yes and no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langbatch.errors import SetupError

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def yes_or_no(named: str, text: object) -> bool:
    """A word for yes or no, nothing for no; `SetupError` for another."""
    if text is None or isinstance(text, bool):
        return bool(text)
    word = str(text).strip().lower()
    if word not in _YES | _NO:
        raise SetupError(f"{named} is neither yes nor no", hint="1 or 0")
    return word in _YES


def deployment_of(model: str | None, given: Mapping[str, Any]) -> str | None:
    """The deployment, which may be called the model."""
    deployment = text_of(given, "deployment")
    if model and deployment and model != deployment:
        raise SetupError("model and deployment differ", hint="on Azure they are the same thing: give one")
    return model or deployment


def text_of(given: Mapping[str, Any], name: str) -> str | None:
    """An argument's text, None where it is not given; `SetupError` for an empty one."""
    value = given.get(name)
    if value is None:
        return None
    text = str(value).strip()  # the SDK's URL objects are welcome
    if not text:
        raise SetupError(f"{name} is empty", hint="leave it out to use the environment")
    return text


def one_of(given: Mapping[str, Any], name: str, alias: str) -> str | None:
    """An argument that has two names; `SetupError` where they say different things."""
    first, second = text_of(given, name), text_of(given, alias)
    if first and second and first != second:
        raise SetupError(f"{name} and {alias} differ", hint="they mean the same: give one of them")
    return first or second


def first_set(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The first of these variables that is set to something."""
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), None)


def keep(settings: dict[str, str], given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Take those of the arguments `names` that are given into a target's settings."""
    for name in names:
        value = given.get(name)
        if isinstance(value, str) and value:
            settings[name] = value
