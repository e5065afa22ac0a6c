"""A receiver of webhooks on this machine: it keeps what it gets, and answers as it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = b"an example of a key, 32 bytes ok"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
#: In the path of every receiver's URL, as some services have it: it must not be told to anybody.
TOKEN = "token-in-the-path-4711"


@dataclass(frozen=True)
class Answer:
    """What the receiver says to one POST, once `when` is set."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    when: threading.Event | None = None


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_with(self, key: bytes) -> bool:
        """As a receiver checks it, from the specification's words."""
        content = b".".join((self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body))
        wanted = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        return f"v1,{wanted}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hooks/{TOKEN}"
        self.got: list[Received] = []
        #: For the next POSTs; after them, 204.
        self.answers: list[Answer] = []
        self.arrived = threading.Condition()

    def wait_for(self, number: int) -> None:
        """Until so many POSTs have arrived, answered or not."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= number, timeout=120)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.got]


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with made.arrived:
                made.got.append(Received(self.path, headers, body))
                answer = made.answers.pop(0) if made.answers else Answer()
                made.arrived.notify_all()
            if answer.when is not None:
                answer.when.wait(120)
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                pass  # the sender was killed meanwhile

        def do_GET(self) -> None:
            with made.arrived:
                made.got.append(Received(self.path, {"webhook-id": "by GET"}, b""))
            self.send_error(405)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
