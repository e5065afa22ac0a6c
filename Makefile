# What takes one word here is otherwise long to type. `.ci/run` makes .venv.
PYTHON ?= .venv/bin/python

.PHONY: check campaign campaign-killing campaign-simulation

check:  ## what CI runs: lint, types, all tests, with the newest and the oldest dependencies
	.ci/run

campaign: campaign-killing campaign-simulation  ## both long campaigns, with their reports

campaign-killing:
	PYTHONPATH=tests $(PYTHON) -m killing --kills 500 --stops 50 --shards 1000 --report docs/campaign-killing.md

campaign-simulation:
	PYTHONPATH=tests $(PYTHON) -m simulation --seeds 100000 --processes 2 --keep .campaign-simulation.jsonl --report docs/campaign-simulation.md
