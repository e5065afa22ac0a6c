"""Promises 1, 2, 4 and 5 under thousands of fault plans: the real core, a simulated service, one virtual clock.

Read in this order: `stage` (who runs when), `faults` and `turns` (what goes wrong, and in which seeds it does
so surely), `service` and `batches` (what is true at the provider), `provider` (what the client gets to see of
it), `processes` and `people` (who acts), `world` (one seed), `judge` (what must hold), `campaign` (many seeds)
and `report`.

    PYTHONPATH=tests python -m simulation --seeds 100000 --processes 2 --report docs/campaign-simulation.md
"""
