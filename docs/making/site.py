"""Builds the site into `docs/_site`: `make docs`.

Fails for a broken link, for a page that the navigation does not lead to, and for a page that would make its
reader's browser ask anybody else for anything.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from making import DOCS

SITE = DOCS / "_site"

#: What a browser fetches by itself when it shows a page; links that a reader may follow are no matter.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?\b(?:src|srcset|data|href)=["'](?:https?:)?//[^>]*>"""
    r"""|(?:url\(|@import\s)\s*["']?(?:https?:)?//[^)\s]*"""
)


def foreign_requests(site: Path) -> Iterator[str]:
    """Each place in the built site that has something fetched from elsewhere."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            for found in _FETCHED.finditer(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(site)}: {found[0][:120]}"


def build() -> int:
    """0, or what is wrong is on standard error."""
    from sphinx.cmd.build import main as sphinx

    shutil.rmtree(SITE, ignore_errors=True)
    code = sphinx(["-q", "-E", "-W", "--keep-going", "-b", "html", str(DOCS), str(SITE)])
    if code:
        return code
    foreign = list(foreign_requests(SITE))
    for one in foreign:
        print(f"fetched from elsewhere: {one}", file=sys.stderr)
    return 1 if foreign else 0


if __name__ == "__main__":
    sys.exit(build())
