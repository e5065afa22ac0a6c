"""The schema's version, for those who must not pay for SQLAlchemy to know it."""

from __future__ import annotations

#: The head of the migrations beside this file.
SCHEMA_VERSION = "0004"
