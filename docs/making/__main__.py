"""Writes every page and drawing that is made from the code: `make pages`."""

from making import made

for path, text in made().items():
    path.write_text(text, encoding="utf-8")
