"""From a URL to what is wanted: family, api-version, verb and ids (§1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from langbatch.emulator.profiles import FIRST_BATCH_VERSION, Family
from langbatch.emulator.wire import Request

#: (method, path below the base) -> verb. Verbs are also the first part of fault names.
_ROUTES = tuple(
    (method, re.compile(pattern), verb)
    for method, pattern, verb in (
        ("POST", r"/files", "upload"),
        ("POST", r"/files/import", "import"),
        ("GET", r"/files", "list-files"),
        ("GET", r"/files/(?P<id>[^/]+)", "get-file"),
        ("DELETE", r"/files/(?P<id>[^/]+)", "delete-file"),
        ("GET", r"/files/(?P<id>[^/]+)/content", "download"),
        ("POST", r"/batches", "create"),
        ("GET", r"/batches", "list"),
        ("GET", r"/batches/(?P<id>[^/]+)", "poll"),
        ("POST", r"/batches/(?P<id>[^/]+)/cancel", "cancel"),
        ("POST", r"/uploads", "open-upload"),
        ("POST", r"/uploads/(?P<id>[^/]+)/parts", "add-part"),
        ("POST", r"/uploads/(?P<id>[^/]+)/complete", "complete-upload"),
        ("POST", r"/uploads/(?P<id>[^/]+)/cancel", "cancel-upload"),
    )
)
_DATED = re.compile(r"20\d\d-[01]\d-[0-3]\d(-preview)?")
UPLOAD_VERBS = frozenset({"open-upload", "add-part", "complete-upload", "cancel-upload"})


@dataclass(frozen=True, slots=True)
class Call:
    """One understood request. `version` is a dated api-version, None for v1 and OpenAI."""

    family: Family
    version: str | None
    verb: str
    id: str = ""

    @property
    def versionless(self) -> bool:
        return self.version is None


def split_base(request: Request, bare: Family) -> tuple[Family, str | None, str]:
    """Family, version and the path below the base; `bare` is the family of paths without a base."""
    path = request.path.rstrip("/")
    if path == "/openai/v1" or path.startswith("/openai/v1/"):
        return "azure-v1", None, path.removeprefix("/openai/v1")
    if path.startswith("/openai/"):
        return "azure", request.query.get("api-version", ""), path.removeprefix("/openai")
    if path.startswith("/v1/"):
        return "openai", None, path.removeprefix("/v1")
    version = request.query.get("api-version", "") if bare == "azure" else None
    return bare, version, path


def route(request: Request, bare: Family) -> tuple[Family, Call | None]:
    """The family that answers, and the call; None where the service knows no such resource.

    On dated paths an absent, malformed or too old api-version is the same 404 as a wrong path (§6),
    except that uploads under an old version are told that the purpose is invalid (§2).
    """
    family, version, path = split_base(request, bare)
    if family == "azure" and (version is None or not _DATED.fullmatch(version)):
        return family, None
    for method, pattern, verb in _ROUTES:
        match = pattern.fullmatch(path)
        if match is None or method != request.method:
            continue
        too_old = version is not None and version[:10] < FIRST_BATCH_VERSION and "/batches" in path
        if (
            too_old
            or (verb == "import" and version is None)
            or (verb in UPLOAD_VERBS and family == "azure-v1")
        ):
            return family, None
        return family, Call(family, version, verb, unquote(match.groupdict().get("id") or ""))
    return family, None
