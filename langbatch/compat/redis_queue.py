"""A request queue in Redis, which several machines may fill and several dispatchers empty.

Keys, for a queue named `q` (LangBatch's is the first; the rest make delivery safe):

| key | type | holds |
|---|---|---|
| `q` | list | requests as JSON, oldest first |
| `q:claims` | hash | per open claim: the id of the job that it became, or nothing yet |
| `q:claim:<id>` | list | the requests of a claim |
| `q:lease:<id>` | string with a time to live | which dispatcher works on the claim |
| `q:refused` | list | requests that no job could be made of |

A request is in exactly one of the lists at any time: it moves by LMOVE (Redis 6.2).
"""

from __future__ import annotations

import json
import logging
import uuid
from typing import TYPE_CHECKING, Any

from langbatch.compat.request_queues import Added, Claim, RequestQueue

if TYPE_CHECKING:
    from redis import Redis

_log = logging.getLogger("langbatch")

#: How long a dispatcher that has died keeps its claims from the others. A living one needs seconds.
LEASE_SECONDS = 600.0
#: Requests moved in one transaction, during which Redis serves nobody else.
_MOVED_AT_ONCE = 1000


class RedisRequestQueue(RequestQueue):
    """A queue in Redis; what was taken out is delivered again unless it is acknowledged.

    Raises `ImportError` without the redis package, `TypeError` for what is no `redis.Redis`.
    """

    def __init__(
        self,
        redis_client: Redis,
        queue_name: str = "request_queue",
        *,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        try:
            import redis
        except ImportError as error:
            raise ImportError(
                "RedisRequestQueue needs the redis package: pip install 'langbatch-manager[redis]'"
            ) from error
        if not isinstance(redis_client, redis.Redis):
            raise TypeError("redis_client must be an instance of redis.Redis")
        # Its methods answer for the asynchronous client as well, as far as types go.
        self.redis_client: Any = redis_client
        self.queue_name = queue_name
        self._claims_key = f"{queue_name}:claims"
        self._refused_key = f"{queue_name}:refused"
        self._lease_ms = int(lease_seconds * 1000)
        self._own = uuid.uuid4().hex

    def add_requests(self, requests: list[Any]) -> Added:
        for first in range(0, len(requests), _MOVED_AT_ONCE):
            lines = [json.dumps(request) for request in requests[first : first + _MOVED_AT_ONCE]]
            self.redis_client.rpush(self.queue_name, *lines)
        _log.debug("added %d requests to the queue", len(requests))
        return Added()

    def get_requests(self, count: int) -> list[Any]:
        """Take requests out for good, as LangBatch did; a dispatcher uses `claim`."""
        if count < 1:
            return []
        return [_request(line) for line in self.redis_client.lpop(self.queue_name, count) or ()]

    def __len__(self) -> int:
        return int(self.redis_client.llen(self.queue_name))

    # ------------------------------------------------------------ claims

    def claim(self, count: int) -> Claim | None:
        if not len(self):
            return None
        name = uuid.uuid4().hex
        self._take_lease(name)
        # Known before anything is in it: a crash from here on leaves a smaller claim, never lost requests.
        self.redis_client.hset(self._claims_key, name, "")
        while count > 0:
            some = min(count, _MOVED_AT_ONCE)
            pipe = self.redis_client.pipeline(transaction=True)
            for _ in range(some):
                pipe.lmove(self.queue_name, self._list(name), "LEFT", "RIGHT")
            if pipe.execute()[-1] is None:
                break
            count -= some
        claim = Claim(name, self._requests(name))
        if not claim.requests:  # another dispatcher was faster
            self.acknowledge(claim)
            return None
        return claim

    def open_claims(self) -> list[Claim]:
        """Those of this dispatcher, and those whose dispatcher let the lease run out."""
        found = []
        for field, job in self.redis_client.hgetall(self._claims_key).items():
            name = _text(field)
            if self._take_lease(name):
                claim = Claim(name, self._requests(name), _text(job) or None)
                if claim.requests:
                    found.append(claim)
                else:
                    self.acknowledge(claim)
        return found

    def hold(self, claim: Claim) -> bool:
        known = self.redis_client.hexists(self._claims_key, claim.id)
        return bool(known) and self._take_lease(claim.id)

    def became(self, claim: Claim, job_id: str) -> None:
        self.redis_client.hset(self._claims_key, claim.id, job_id)

    def acknowledge(self, claim: Claim) -> None:
        pipe = self.redis_client.pipeline(transaction=True)
        pipe.delete(self._list(claim.id), self._lease(claim.id))
        pipe.hdel(self._claims_key, claim.id)
        pipe.execute()

    def refuse(self, claim: Claim) -> None:
        while self.redis_client.lmove(self._list(claim.id), self._refused_key, "LEFT", "RIGHT") is not None:
            pass
        self.acknowledge(claim)

    def refused(self) -> list[Any]:
        """What no batch can be made of; text where an entry was not even JSON."""
        return [_request(line) for line in self.redis_client.lrange(self._refused_key, 0, -1)]

    def _take_lease(self, name: str) -> bool:
        key = self._lease(name)
        if self.redis_client.set(key, self._own, nx=True, px=self._lease_ms):
            return True
        if _text(self.redis_client.get(key) or "") != self._own:
            return False
        # XX: should it have run out since, somebody else may have it by now, and `hold` will tell.
        return bool(self.redis_client.pexpire(key, self._lease_ms))

    def _requests(self, name: str) -> list[Any]:
        """Those of a claim. An entry that is not JSON came from somebody else: it is set aside."""
        found = []
        for line in self.redis_client.lrange(self._list(name), 0, -1):
            try:
                found.append(json.loads(line))
            except ValueError:
                pipe = self.redis_client.pipeline(transaction=True)
                pipe.lrem(self._list(name), 1, line)
                pipe.rpush(self._refused_key, line)
                pipe.execute()
                _log.warning("an entry of the queue was set aside: it is not JSON")
        return found

    def _list(self, name: str) -> str:
        return f"{self.queue_name}:claim:{name}"

    def _lease(self, name: str) -> str:
        return f"{self.queue_name}:lease:{name}"


def _request(line: bytes | str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line if isinstance(line, str) else line.decode("utf-8", "replace")


def _text(value: bytes | str) -> str:
    """Clients answer in bytes, or in text with `decode_responses`."""
    return value.decode() if isinstance(value, bytes) else value
