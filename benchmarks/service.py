"""The emulator for the measurements: prints its base URLs as JSON, then serves until it is ended.

`python service.py FAILURE_RATE`. Its time passes when it is looked at, so that only transfers are timed.
"""

from __future__ import annotations

import json
import signal
import sys

from langbatch.emulator import EmulatorConfig, running_server

if __name__ == "__main__":
    # OpenAI's limit of 50,000 requests would end the job of whoever does not cut it into shards.
    config = EmulatorConfig.instant(failure_rate=float(sys.argv[1]), requests_limit=1_000_000)
    with running_server(config=config) as server:
        print(
            json.dumps({"azure_endpoint": server.azure_endpoint, "openai": server.openai_base_url}),
            flush=True,
        )
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
