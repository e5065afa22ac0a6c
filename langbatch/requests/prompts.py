"""Prompts that one decoding proves sound and well shaped, one by one or many at once."""

from __future__ import annotations

import operator
import sys
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ROLES = frozenset(get_args(Role))


class Unfit(Exception):
    """Raised by the checks below: the place inside the value, and what is wrong there."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(what)
        self.where = where
        self.what = what


class _Kept(type):
    """Makes `deque.insert` a decoder's hook, which takes a type and a value and returns one of that type: the
    type counts as a place, and the None that comes back as one of the type.

    A hook in Python takes as long as all the decoding.
    """

    __instancecheck__ = operator.not_  # type: ignore[assignment]  # a builtin is given the instance alone


class _First(_Kept):
    __index__ = (0).__index__


class _Last(_Kept):
    __index__ = sys.maxsize.__index__


class _KeptRole(metaclass=_First):
    """Stands for a value that was decoded and put before all others."""


class _KeptText(metaclass=_Last):
    """Stands for a value that was decoded and put behind all others."""


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Nothing but text: decoding into this proves depth, numbers and UTF-8 on the way."""

    role: _KeptRole
    content: _KeptText


#: Of messages a role and a text are all there may be.
Messages = Annotated[list[_PlainMessage], Meta(min_length=1)]


class Prompts:
    """Decodes prompts of a type; for one thread. `count` tells the inputs of one that has not messages.

    After `decode` it is `passed` that knows whether messages are sound and well shaped: those of all prompts
    since it was asked last. What raises is neither.
    """

    def __init__(self, prompt: Any, count: Callable[[Any], int] | None) -> None:
        self._values: deque[Any] = deque()
        self._count = count
        hook: Any = self._values.insert
        self.decode: Callable[[Any], Any] = msgspec.json.Decoder(prompt, dec_hook=hook).decode

    def passed(self, messages: int) -> bool:
        """Whether the messages decoded, so many in all prompts together, are what they must be."""
        values = list(self._values)
        self._values.clear()
        # Each message has both members. msgspec drops the first value of two equal keys without a word, but
        # has decoded it. What it decoded of a prompt before it gave up is here, too.
        if len(values) != 2 * messages:
            return False
        try:
            return _ROLES.issuperset(values[:messages]) and set(map(type, values[messages:])) <= {str}
        except TypeError:
            return False  # a role that is an array

    def inputs(self, value: Any) -> int:
        """How many inputs the prompt has. Raises where decoding it proves too little."""
        self._values.clear()
        decoded = self.decode(value)
        if self._count is not None:
            return self._count(decoded)
        if not self.passed(len(decoded) if isinstance(decoded, list) else 0):
            raise Unfit("", "may repeat a key, or is no plain text")
        return 1
