"""`langbatch.request_queues`, as LangBatch's users import it."""

from langbatch.compat.redis_queue import RedisRequestQueue
from langbatch.compat.request_queues import InMemoryRequestQueue, RequestQueue

__all__ = ["InMemoryRequestQueue", "RedisRequestQueue", "RequestQueue"]
