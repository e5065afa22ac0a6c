"""Pages and drawings of the documentation that are made from the code: `make pages` writes them.

A test compares what is committed with what would be written.
"""

from __future__ import annotations

from pathlib import Path

from making import commands, diagram, error_codes, states

DOCS = Path(__file__).resolve().parents[1]


def made() -> dict[Path, str]:
    """Each file that is made, with the text that it must hold."""
    return {
        DOCS / "states.md": states.page(),
        DOCS / "states.svg": diagram.picture(),
        DOCS / "reference" / "commands.md": commands.page(),
        DOCS / "reference" / "error-codes.md": error_codes.page(),
    }
