"""The `langbatch` command: every command's name, and what becomes of its outcome."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from langbatch_cli import (
    build,
    demo,
    doctor,
    emulator,
    ending,
    events,
    exits,
    explain,
    fetch,
    gc,
    options,
    prices,
    recover,
    status,
    submit,
    validate,
    watch,
)
from langbatch_cli.exits import Exit
from langbatch_cli.failures import report, version
from langbatch_cli.session import Detached, Session, UsageError

app = typer.Typer(
    name="langbatch",
    # Typer's rich help and tracebacks would load rich for every `--help`, and show local variables.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for function in (
    build.build,
    validate.validate,
    submit.submit,
    status.status,
    watch.watch,
    events.events,
    fetch.fetch,
    ending.cancel,
    ending.retry,
    watch.resume,
    ending.reconcile,
    doctor.doctor,
    explain.explain,
    ending.purge,
    gc.gc,
    prices.prices,
    recover.recover,
    emulator.emulator,
    demo.demo,
):
    app.command(epilog=exits.sentence(exits.of_command(function.__name__)))(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"langbatch {version()}")
        raise typer.Exit


@app.callback(epilog=exits.sentence(tuple(Exit)))
def langbatch_command(
    ctx: typer.Context,
    json: options.Json = False,
    home: options.Home = None,
    version_only: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Batch inference jobs on Azure OpenAI and OpenAI: a file of requests goes in, exactly one result per
    request comes out, in input order, paid for once.

    Text for people goes to standard error, data to standard output.
    """
    options.session_of(ctx, json, home)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Known before the parser has read it: what the parser refuses is told in JSON as well.
    session = Session(json="--json" in given)
    if not given:
        # A script whose command came out empty must not pass for done.
        main(["--help"])
        return Exit.USAGE
    command = next((word for word in given if word in _names()), "")
    try:
        code = typer.main.get_command(app).main(
            args=given, prog_name="langbatch", standalone_mode=False, obj=session
        )
    except KeyboardInterrupt:
        return report(session, Detached("the same command", jobs_go_on=False))
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return report(session, _understood(error, command), command)
    return int(code or Exit.DONE)


def _understood(error: Exception, command: str) -> Exception:
    """The parser's complaints are usage errors, whichever library raises them; Ctrl-C reaches us as Abort."""
    if isinstance(error, typer.Abort):
        return Detached("the same command", jobs_go_on=False)
    describe = getattr(error, "format_message", None)
    if callable(describe):
        words = " ".join(("langbatch", command)).strip()
        return UsageError(str(describe()), f"{words} --help")
    return error


def _names() -> frozenset[str]:
    return frozenset(info.callback.__name__ for info in app.registered_commands if info.callback)
