"""Real SIGKILLs and SIGSTOPs of the real command line, at every failpoint and at random.

`python -m killing` (with `tests` on PYTHONPATH) runs the campaigns and writes their report;
`test_killing.py` is their short form. docs/design.md says what each death must lead to.
"""
