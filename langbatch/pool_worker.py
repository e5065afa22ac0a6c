"""A process of a `ProcessPool`. Loads as little as it can: whoever started it waits for it."""

from __future__ import annotations

import os
import pickle
from typing import Final

#: What a worker writes first. Before it may come whatever is printed while Python starts.
READY: Final = b"\0langbatch is ready\0"


def serve() -> None:
    """Do what is told on standard input, a task after the other, until that ends."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a function prints is no answer
    answers.write(READY)
    answers.flush()
    while True:
        try:
            function, arguments, named = pickle.load(tasks)
        except EOFError:
            return
        try:
            answer = True, function(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - the caller's, as from any executor
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()
