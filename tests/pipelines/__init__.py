"""The recipes of docs/how-to/pipelines.md, run."""
