# What takes one word here is otherwise long to type. `.ci/run` makes .venv.
PYTHON ?= .venv/bin/python

.PHONY: check docs docs-serve pages pictures recipes campaign campaign-killing campaign-simulation

check:  ## what CI runs: lint, types, all tests, with the newest and the oldest dependencies
	.ci/run

recipes:  ## docs/how-to/pipelines.md with Airflow and with Prefect, in environments of their own (650 MB)
	python3 -m venv .venv-airflow
	.venv-airflow/bin/python -m pip install -q -e '.[test]' 'apache-airflow-core>=3.3,<4'
	.venv-airflow/bin/python -m pytest -q tests/pipelines/airflow_recipe.py
	python3 -m venv .venv-prefect
	.venv-prefect/bin/python -m pip install -q -e '.[test]' 'prefect>=3,<4'
	.venv-prefect/bin/python -m pytest -q tests/pipelines/prefect_recipe.py

docs:  ## the site in docs/_site; a broken link, a page that is nowhere or a foreign request fails
	PYTHONPATH=docs $(PYTHON) -m making.site

docs-serve: docs  ## the same, to look at
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory docs/_site 8000

pages:  ## the pages that are made from the code: commands, error codes, states
	PYTHONPATH=docs $(PYTHON) -m making

pictures:  ## docs/screens, drawn anew
	PYTHONPATH=docs $(PYTHON) -m making.screens

campaign: campaign-killing campaign-simulation  ## both long campaigns, with their reports

campaign-killing:
	PYTHONPATH=tests $(PYTHON) -m killing --kills 500 --stops 50 --shards 1000 --keep .campaign-killing.pickle --report docs/campaign-killing.md

campaign-simulation:
	PYTHONPATH=tests $(PYTHON) -m simulation --seeds 100000 --processes 2 --keep .campaign-simulation.jsonl --report docs/campaign-simulation.md
