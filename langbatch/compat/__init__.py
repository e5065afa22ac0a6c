"""LangBatch's names on our jobs: a program written for LangBatch 0.1.2 runs here unchanged.

`docs/langbatch.md` lists each name. The modules that LangBatch's users import stand in `import_paths/`, which
`langbatch/__init__.py` puts on the package's path; each only passes on names from here, so that a class is
the same one whichever path it came by.
"""
