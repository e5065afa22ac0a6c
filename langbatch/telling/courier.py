"""Webhooks: a job's end is posted until it is accepted, or for as long as it may take.

What is still to be delivered is in the store, so that a restart goes on with it. A thread of its own makes
the calls: a receiver that is slow, or is not there, holds up no job and no result.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress

from langbatch.clock import Clock
from langbatch.errors import LangBatchError
from langbatch.store import deliveries, following
from langbatch.store.deliveries import Delivery
from langbatch.store.store import JobStore
from langbatch.store.transitions import LostClaim
from langbatch.telling.posting import post
from langbatch.telling.signing import signed_headers
from langbatch.telling.webhook import Webhook, body_of, next_try

_log = logging.getLogger("langbatch")

#: For a connection, and for each piece of the answer.
POST_SECONDS = 15.0
#: How long closing a manager waits for tries under way. What is not done by then is left to the next.
CLOSING_SECONDS = 15.0


class Courier:
    """Delivers one store's webhooks to one receiver."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        webhook: Webhook,
        *,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._webhook = webhook
        self._roll = roll
        self._thread: threading.Thread | None = None
        self._complained = False
        following.register(store, webhook.consumer)

    def tend(self) -> None:
        """Note what has finished, and see to it that what is due is tried. Returns at once."""
        deliveries.enter(self._store, self._webhook.consumer, body_of)
        if self._thread is not None and self._thread.is_alive():
            return  # it looks again before it ends, or the next call does
        if not deliveries.is_due(self._store, self._webhook.consumer, self._clock.now(), self._abandoned):
            return
        self._thread = threading.Thread(target=self._run, name="langbatch-webhook", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None  # the interpreter is ending: the next process goes on

    def finish(self, seconds: float = CLOSING_SECONDS) -> None:
        """Wait for tries under way, not for later ones."""
        if self._thread is None:
            return
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self.tend()  # what became due while the thread was about to end
            if self._thread is not None:
                self._thread.join(seconds)

    @property
    def _abandoned(self) -> float:
        """Whose job ended before, is given up."""
        return self._clock.now() - self._webhook.patience_seconds

    def _run(self) -> None:
        try:
            while True:
                delivery = deliveries.claim(self._store, self._webhook.consumer, self._abandoned)
                if delivery is None:
                    return
                with suppress(LostClaim):  # this process was frozen, and another one went on; or a purge came
                    self._try(delivery)
        except Exception as error:  # noqa: BLE001 - whatever it is, no job may suffer from it
            text = error.message if isinstance(error, LangBatchError) else type(error).__name__
            self._complain(f"webhooks could not be sent: {text}")

    def _try(self, delivery: Delivery) -> None:
        if delivery.told_at < self._abandoned:
            self._give_up(delivery, "its time was over before it could be tried again")
            return
        body = delivery.body.encode()
        headers = signed_headers(delivery.id, self._clock.now(), body, self._webhook.keys)
        reply = post(self._webhook.url, body, headers, POST_SECONDS)
        if reply.accepted:
            note = f"{delivery.id} {reply.words} tries={delivery.tries + 1}"
            deliveries.settle(self._store, delivery, "webhook_delivered", note)
            return
        patience = self._webhook.patience_seconds
        now = self._clock.now()
        due_at = next_try(delivery.told_at, delivery.tries, reply, now, patience, self._roll())
        if due_at is None:
            self._give_up(delivery, reply.words, tries=delivery.tries + 1)
            return
        deliveries.put_off(self._store, delivery, due_at, f"{delivery.id} {reply.words}")
        self._complain(
            f"a webhook could not be delivered yet ({reply.words}); "
            "processes that advance jobs, such as `langbatch resume`, try again"
        )

    def _give_up(self, delivery: Delivery, why: str, tries: int | None = None) -> None:
        tried = delivery.tries if tries is None else tries
        deliveries.settle(self._store, delivery, "webhook_given_up", f"{delivery.id} {why} tries={tried}")
        job = json.loads(delivery.body)["data"]["id"]
        _log.warning("the webhook for job %s is given up after %d tries: %s", job, tried, why)

    def _complain(self, text: str) -> None:
        """Once in a process: the store's events tell the rest."""
        if not self._complained:
            self._complained = True
            _log.warning("%s", text)
