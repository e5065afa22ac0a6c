"""`langbatch emulator`: a local service that speaks the wire protocol."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import visible
from langbatch_cli.session import Session, UsageError

if TYPE_CHECKING:
    from langbatch.emulator import RunningServer

#: What langbatch reads to reach the emulator, which takes any key.
_KEY = "emulator"
#: Between looks at what the emulator has done, for --verbose.
_LOOK_SECONDS = 0.3


class Profile(StrEnum):
    azure = "azure"
    azure_v1 = "azure-v1"
    openai = "openai"


def emulator(
    ctx: typer.Context,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 0,
    profile: Annotated[Profile, typer.Option("--profile", help="Whose manners.")] = Profile.azure,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="NAME[=PARAM][@n|*n|%p]; may be repeated.", show_default=False),
    ] = None,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="Print every fault there is.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Keep everything here over restarts.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of faults and failures drawn at random.")] = 0,
    speed: Annotated[float, typer.Option("--speed", min=0.001, help="How fast its time runs.")] = 1.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell what happens.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Run a local double of the batch services.

    It speaks Azure OpenAI's and OpenAI's wire protocol on this machine until Ctrl-C.

    Its base URL is the first line on standard output, once it is ready. Any key opens it.
    """
    from langbatch.emulator import EmulatorConfig, parse_fault, running_server

    session = options.session_of(ctx, json, home)
    faults = fault or []
    if list_faults or "list" in faults:
        return _list_faults(session)
    for text in faults:
        try:
            parse_fault(text)
        except ValueError as error:
            raise UsageError(str(error), "langbatch emulator --list-faults") from None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Set by hand: a shell starts background commands with SIGINT ignored.
        signal.signal(number, lambda *_: stop.set())
    config = EmulatorConfig.demo(profile=profile.value, faults=tuple(faults), seed=seed, speed=speed)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = visible(str(folder))
            raise UsageError(
                f"{shown} cannot be the emulator's folder: {error.strerror or error}",
                "name one that can be made, or leave out --folder",
            ) from error
    try:
        with running_server(config=config, folder=folder, port=port) as server:
            _announce(session, server, profile)
            seen: Mapping[str, Any] = {}
            while not stop.wait(_LOOK_SECONDS):
                if verbose:
                    found = _facts(server)
                    for line in changes(seen, found):
                        session.say(line)
                    seen = found
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror or error}", "--port 0 takes a free one"
        ) from error
    return Exit.DONE


def _announce(session: Session, server: RunningServer, profile: Profile) -> None:
    url = server.openai_base_url if profile is Profile.openai else server.url
    variables = environment(url, profile)
    if session.json:
        session.put_document(
            {"base_url": url, "profile": profile.value, "environment": variables}, one_line=True
        )
    else:
        session.put(url)
    session.say("For langbatch, in another terminal:")
    for name, value in variables.items():
        session.say(f"  export {name}={value}")
    if sys.stderr.isatty():
        session.say("Ctrl-C ends it.")


def environment(url: str, profile: Profile) -> dict[str, str]:
    """The variables that point langbatch at an emulator."""
    if profile is Profile.openai:
        return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": _KEY}
    version = "v1" if profile is Profile.azure_v1 else "2024-10-21"
    return {"AZURE_API_BASE": url, "AZURE_API_KEY": _KEY, "AZURE_API_VERSION": version}


def _facts(server: RunningServer) -> Mapping[str, Any]:
    report = server.emulator.report()
    return {
        **{f"{what} so far": count for what, count in report["counts"].items() if count},
        **{f"fault {name} fired": count for name, count in report["faults_fired"].items()},
        **{batch["id"]: batch["status"] for batch in report["batches"]},
    }


def changes(seen: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """`NAME: VALUE` for every fact that is new or other than it was."""
    for name, value in found.items():
        if seen.get(name) != value:
            yield f"{name}: {value}"


def _list_faults(session: Session) -> Exit:
    from langbatch.emulator import FAULTS

    if session.json:
        faults = [
            {"name": entry.name, "summary": entry.summary, "default": entry.default}
            for entry in FAULTS.values()
        ]
        session.put_document({"faults": faults})
        return Exit.DONE
    for entry in FAULTS.values():
        default = f" (={entry.default})" if entry.default is not None else ""
        session.put(f"{entry.name}\t{entry.summary}{default}")
    return Exit.DONE
