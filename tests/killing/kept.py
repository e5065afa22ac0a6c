"""What a campaign has found so far, in a file, so that it may be stopped and gone on with later.

Only for the same code and the same extent. Our own file, written by us: it may be a pickle.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from killing.campaign import Extent, Findings
from played_code import OtherCode, code_digest

_OWN = Path(__file__).parent


def load(path: Path, extent: Extent) -> Findings:
    """Nothing yet, where there is no file. Raises `OtherCode`."""
    if not path.exists():
        return Findings()
    played, found = pickle.loads(path.read_bytes())
    if played != (code_digest(_OWN), extent):
        raise OtherCode(f"{path} is of another state of the code, or of other options: delete it")
    assert isinstance(found, Findings)
    return found


def save(path: Path, extent: Extent, found: Findings) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(pickle.dumps(((code_digest(_OWN), extent), found)))
    os.replace(new, path)
