"""`langbatch`, and `python -m langbatch_cli`."""

from __future__ import annotations

import os
import sys


def run() -> int:
    """The command. What needs no parser is answered without one: Typer alone takes a tenth of a second."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    if sys.argv[1:2] == ["status"]:
        from langbatch_cli.glance import listed
        from langbatch_cli.session import Session

        lines = listed(sys.argv[1:])
        if lines is not None:
            Session().say(lines)
            return 0
    from langbatch_cli.app import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
