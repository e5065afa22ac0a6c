"""Where state is kept, how patient langbatch is, who is told of events; and which profile is in force."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.config.arguments import yes_or_no
from langbatch.errors import SetupError
from langbatch.profiles import FILE_NAME, Profile, read_profile
from langbatch.providers.endpoints import is_loopback, read_address, refuse_plain_http
from langbatch.records import Target

if TYPE_CHECKING:
    from langbatch.telling.webhook import Webhook

DEFAULT_POLL_SECONDS = 60.0
#: Between looks at a service on this machine: the emulator, or a user's own.
LOOPBACK_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Where state is kept and how patient langbatch is. Times are seconds; None means unset."""

    home: Path
    #: A SQLAlchemy URL, which may hold a password; None: SQLite in `home`.
    database_url: str | None = field(default=None, repr=False)
    poll_seconds: float = DEFAULT_POLL_SECONDS
    #: Whether the user chose `poll_seconds`; else a loopback service is looked at more often.
    poll_is_chosen: bool = False
    #: How long an absent batch may still turn up; None: the caller chooses (1800, or 600 behind a fence).
    grace_seconds: float | None = None
    #: How long `resume --wait` rides out an outage; None: the caller's default.
    outage_seconds: float | None = None
    allow_http: bool = False
    #: Where events are appended as JSON lines; None: nowhere.
    event_log: Path | None = None
    #: Whether events become OpenTelemetry's metrics and traces.
    telemetry: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    #: For how long a webhook is tried; None: the default, three days.
    webhook_seconds: float | None = None

    @classmethod
    def load(
        cls,
        home: str | os.PathLike[str] | None = None,
        database_url: str | None = None,
        environ: Mapping[str, str] = os.environ,
        profile: Mapping[str, str] | None = None,
    ) -> Settings:
        """The settings in force. `profile` holds the variables' names in lower case without `LANGBATCH_`."""

        def find(name: str) -> str | None:
            return environ.get(f"LANGBATCH_{name.upper()}") or (profile or {}).get(name) or None

        poll = _seconds("poll_seconds", find, positive=True)
        # LangBatch's variable: who put its data on a disk that lasts finds ours there, too.
        folder = home if home is not None else find("home") or find("data_path")
        log = find("event_log")
        named = (profile or {}).get("webhook_secret_env")
        secrets = ("LANGBATCH_WEBHOOK_SECRET", *([named] if named else []))
        return cls(
            home=_default_home() if folder is None else Path(folder).expanduser().absolute(),
            database_url=database_url or find("database_url"),
            poll_seconds=DEFAULT_POLL_SECONDS if poll is None else poll,
            poll_is_chosen=poll is not None,
            grace_seconds=_seconds("grace_seconds", find),
            outage_seconds=_seconds("outage_seconds", find),
            allow_http=yes_or_no("LANGBATCH_ALLOW_HTTP", find("allow_http")),
            event_log=None if log is None else Path(log).expanduser().absolute(),
            telemetry=yes_or_no("LANGBATCH_TELEMETRY", find("telemetry")),
            webhook_url=find("webhook_url"),
            # Never in the profile itself, which names the variable at most.
            webhook_secret=next(filter(None, map(environ.get, secrets)), None),
            webhook_seconds=_seconds("webhook_seconds", find),
        )

    @property
    def tells_others(self) -> bool:
        """Whether anybody outside this process wants to be told of events."""
        return self.event_log is not None or self.webhook_url is not None or self.telemetry

    def check(self) -> None:
        """`SetupError` for what would turn out to be unusable only when it is needed."""
        _ = self.webhook

    @property
    def webhook(self) -> Webhook | None:
        """Where the ends of jobs are posted; `SetupError` for what could not be used."""
        if self.webhook_url is None:
            return None
        from langbatch.telling.signing import MAKE_ONE, read_secrets
        from langbatch.telling.webhook import PATIENCE_SECONDS, Webhook

        named, url = "LANGBATCH_WEBHOOK_URL", self.webhook_url.strip()
        address = read_address(url, named)
        if not url.isascii() or "://" not in url:
            raise SetupError(f"{named} is not a whole address", hint="https://hooks.example.com/langbatch")
        refuse_plain_http(address, self.allow_http)
        if not self.webhook_secret:
            raise SetupError("a webhook is set, but LANGBATCH_WEBHOOK_SECRET is not", hint=MAKE_ONE)
        keys = read_secrets(self.webhook_secret, "LANGBATCH_WEBHOOK_SECRET")
        patience = self.webhook_seconds
        return Webhook(url, keys, PATIENCE_SECONDS if patience is None else patience)

    def poll_seconds_for(self, target: Target) -> float:
        """The longest wait between looks at this target."""
        if self.poll_is_chosen or not is_loopback(target.host):
            return self.poll_seconds
        return LOOPBACK_POLL_SECONDS


def find_profile(name: str | None, home: Path, environ: Mapping[str, str] = os.environ) -> Profile | None:
    """The profile of that name, or the one `LANGBATCH_PROFILE` names; None where neither does."""
    chosen = name or environ.get("LANGBATCH_PROFILE") or None
    if chosen is None:
        return None
    return read_profile(Path(environ.get("LANGBATCH_PROFILES") or home / FILE_NAME), chosen)


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("langbatch", appauthor=False)


def _seconds(name: str, find: Callable[[str], str | None], *, positive: bool = False) -> float | None:
    text = find(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or (positive and seconds == 0):
        least = "above 0" if positive else "of 0 or more"
        raise SetupError(
            f"LANGBATCH_{name.upper()} is {text[:40]!r}, not a number of seconds",
            hint=f"give a number {least}",
        )
    return seconds
