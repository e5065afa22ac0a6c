"""Options that several commands share."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

import langbatch
from langbatch_cli.render import visible
from langbatch_cli.session import Session, UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="FOLDER", help="Where jobs are kept. Default: LANGBATCH_HOME.", show_default=False
    ),
]


def _stored_jobs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """For the shell's completion: ids, the newest first, each with what a person knows it by. Whatever goes
    wrong, nothing may be printed between somebody's keystrokes, and no store may be made."""
    try:
        with langbatch.JobManager(ctx.params.get("home")) as manager:
            if manager.settings.database_url is None and not (manager.home / "langbatch.db").exists():
                return []
            found = [job for job in reversed(manager.jobs()) if job.id.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - see above
        return []
    return [(job.id, f"{job.state}: {visible(job.name or job.input, 60)}") for job in found]


Job = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job's id, or a unique prefix of it.", autocompletion=_stored_jobs),
]
SomeJob = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB]", help="A job's id, or a unique prefix; without: all.", autocompletion=_stored_jobs
    ),
]
Jobs = Annotated[
    list[str],
    typer.Argument(metavar="JOB…", help="Ids of jobs, or unique prefixes.", autocompletion=_stored_jobs),
]

InputFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A JSONL file of requests; - is standard input.")
]
Provider = Annotated[str, typer.Option("--provider", help="azure or openai.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="The model to write into every line; on Azure the deployment.", show_default=False
    ),
]
Deployment = Annotated[
    str | None,
    typer.Option("--deployment", help="The Azure deployment to write into every line.", show_default=False),
]
ApiVersion = Annotated[
    str | None,
    typer.Option("--api-version", help="A date such as 2024-10-21, or v1.", show_default=False),
]
AzureEndpoint = Annotated[
    str | None,
    typer.Option("--azure-endpoint", "--api-base", help="https://NAME.openai.azure.com", show_default=False),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="The service's base URL, used as it is.", show_default=False),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Targets and waits of profiles.toml.", show_default=False),
]
AllowHttp = Annotated[
    bool, typer.Option("--allow-http", help="Allow an unencrypted service on another machine.")
]
AutoId = Annotated[bool, typer.Option("--auto-id", help="Give lines without a custom_id one.")]
SplitByModel = Annotated[
    bool,
    typer.Option(
        "--split-by-model",
        help="Allow several models: a batch for each run of lines with the same one. Sort the file by model.",
    ),
]
Gzip = Annotated[bool, typer.Option("--gzip", help="FILE is compressed with gzip.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is finished.")]


def session_of(ctx: typer.Context, json: bool, home: Path | None) -> Session:
    """The run's session; `--json` and `--home` may stand before the command's name or behind it."""
    session = ctx.find_object(Session)
    assert session is not None
    session.json = session.json or json
    session.home = home if home is not None else session.home
    session.provider = ctx.params.get("provider")
    return session


def amount_of_money(text: str | None, option: str) -> Decimal | None:
    """The option's value as a decimal; `UsageError` for what is no amount above 0."""
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or amount <= 0:
        raise UsageError(f"{option} is {text[:40]!r}, not an amount above 0", "25 or 0.50")
    return amount


def one_model(model: str | None, deployment: str | None) -> str | None:
    if model and deployment and model != deployment:
        raise UsageError(
            "--model and --deployment differ", "give one of them; on Azure they are the same thing"
        )
    return deployment or model
