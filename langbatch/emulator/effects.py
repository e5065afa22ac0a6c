"""What each fault effect looks like on the wire. Bodies follow section 6 of the wire reference."""

from __future__ import annotations

from dataclasses import replace

from langbatch.emulator.faults import Fault
from langbatch.emulator.profiles import Family
from langbatch.emulator.wire import FileBlocks, Request, Response, html_response, http_date, json_response

ENTRA_MESSAGE = (
    "Unauthorized. Access token is missing, invalid, audience is incorrect "
    "(https://cognitiveservices.azure.com), or have expired."
)
KEY_MESSAGE = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource."
)
ROLE_MESSAGE = "Principal does not have access to API/Operation."
NETWORK_MESSAGE = "Access denied due to Virtual Network/Firewall rules."
KEYLESS_MESSAGE = "Key based authentication is disabled for this resource."


def error_response(
    family: Family,
    status: int,
    code: str | None,
    message: str,
    *,
    param: str | None = None,
    kind: str = "invalid_request_error",
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    """An error in the family's own schema (§6)."""
    if family == "openai":
        error: dict[str, object] = {"message": message, "type": kind, "param": param, "code": code}
    elif family == "azure-v1":
        error = {"code": code or str(status), "message": message, "param": param, "type": "error"}
    else:
        error = {"code": code or str(status), "message": message}
    return json_response({"error": error}, status, headers)


def entra_refusal() -> Response:
    """Without an `error` wrapper, so that the SDK's `.code` is None."""
    return json_response({"statusCode": 401, "message": ENTRA_MESSAGE}, 401)


def key_refusal(family: Family) -> Response:
    if family == "openai":
        message = "Incorrect API key provided."
        return error_response("openai", 401, "invalid_api_key", message, kind="invalid_request_error")
    return json_response({"error": {"code": "401", "message": KEY_MESSAGE}}, 401)


def role_refusal() -> Response:
    return json_response({"error": {"code": "PermissionDenied", "message": ROLE_MESSAGE}}, 401)


def forbidden(message: str = NETWORK_MESSAGE) -> Response:
    return json_response({"error": {"code": "403", "message": message}}, 403)


def _throttled(family: Family, effect: str, param: str | None, now: float) -> Response:
    headers: tuple[tuple[str, str], ...] = ()
    if effect == "429-ms":
        headers = (("retry-after-ms", param or ""),)
    elif effect == "429-date":
        headers = (("retry-after", http_date(now + float(param or 0))),)
    elif effect != "429":
        headers = (("retry-after", param or ""),)
    message = (
        "Requests to the Batch Operation under the emulator have exceeded token rate limit "
        "of your current pricing tier. Please retry after some seconds."
    )
    return error_response(family, 429, "429", message, kind="requests", headers=headers)


def effect_response(
    fault: Fault, effect: str, family: Family, request: Request, now: float, committed: Response | None = None
) -> Response:
    """What the caller gets. `committed` is the reply that the effect spoils, if the call was carried out."""
    if effect in ("drop", "reset"):
        return Response(500, drop_connection="close" if effect == "drop" else "reset")
    if effect == "408":
        return error_response(family, 408, "408", "The request timed out.", kind="server_error")
    if effect == "409":
        return error_response(family, 409, "conflict", "Another operation is in progress.")
    if effect == "500":
        return error_response(family, 500, "internalFailure", "The server had an error.", kind="server_error")
    if effect == "503-html":
        return html_response(503)
    if effect == "html":
        return html_response(200)
    if effect == "truncated-json":
        whole = committed.read() if committed is not None else b'{"id": "batch_0000", "object": "batch"}'
        return Response(200, (("content-type", "application/json"),), whole[: len(whole) // 2])
    if effect == "redirect":
        query = "&".join(f"{key}={value}" for key, value in request.query.items())
        target = f"{request.base_url}{request.path}" + (f"?{query}" if query else "")
        return Response(307, (("location", target),))
    if effect == "404":
        return error_response(family, 404, "notFound", "The requested resource was not found.")
    if effect == "403":
        return forbidden()
    if effect == "401-entra":
        return entra_refusal()
    if effect == "401-key":
        return key_refusal(family)
    if effect == "401-role":
        return role_refusal()
    return _throttled(family, effect, fault.param, now)


def cut_download(response: Response, fault: Fault) -> Response:
    """Close in the middle (`download-truncated`), or lie about the length (`download-short`)."""
    length = response.length or 0
    kept = min(length, int(length * fault.amount))
    if fault.name == "download-truncated":
        return replace(response, truncate_after=kept)
    if isinstance(response.body, FileBlocks):
        return replace(response, body=FileBlocks(response.body.path, kept))
    return response
