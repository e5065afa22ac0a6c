"""The way back: rows, joined into one record per request, in input order."""
