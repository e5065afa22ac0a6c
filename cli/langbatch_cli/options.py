"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langbatch_cli.session import Session, UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="FOLDER", help="Where jobs are kept. Default: LANGBATCH_HOME.", show_default=False
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a unique prefix of it.")]

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
SplitByModel = Annotated[bool, typer.Option("--split-by-model", help="Allow several models; one batch each.")]
Gzip = Annotated[bool, typer.Option("--gzip", help="FILE is compressed with gzip.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is finished.")]


def session_of(ctx: typer.Context, json: bool, home: Path | None) -> Session:
    """The run's session; `--json` and `--home` may stand before the command's name or behind it."""
    session = ctx.find_object(Session)
    assert session is not None
    session.json = session.json or json
    session.home = home if home is not None else session.home
    return session


def one_model(model: str | None, deployment: str | None) -> str | None:
    if model and deployment and model != deployment:
        raise UsageError(
            "--model and --deployment differ", "give one of them; on Azure they are the same thing"
        )
    return deployment or model
