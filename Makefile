# Sets up, runs, tests and checks Usher. `make` alone lists the targets.

# Any Python from 3.11 on will do; `make PYTHON=/path/to/python3` chooses one.
is_new_enough := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(is_new_enough)' 2>/dev/null && echo $$python && break; done)

# The scripts of a virtual environment carry its path: a moved or copied folder needs a new one.
folder := $(shell pwd | cksum | cut -d ' ' -f 1)
packages := .venv/.packages-$(folder)
installed := .venv/.installed-$(folder)

python := .venv/bin/python
bench_python := .venv-bench/bin/python
bench_installed := .venv-bench/.installed-$(folder)
checked := dispatcher web worker_agent devstack
# Two test processes, each with servers of its own: most tests wait more than they work. Those that
# time an exact moment (outages) or load all processors (deployments) run one by one.
in_two := -n 2 --dist loadfile

.PHONY: help demo up test outages apart ordinary deployments package controls faults fuzz check campaign bench setup clean clients vendor monitoring screenshots
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(installed) ## send one real dispatch through the whole stack and show how its agent got in
	@exec $(python) -m devstack demo --with-parent

up: $(installed) ## run the whole stack until Ctrl-C
	@exec $(python) -m devstack up --with-parent

test: setup ## run the tests, on the real Redis and the real LiveKit server (some 13 minutes)
	@echo "[4/4] running the tests"
	@exec $(python) -m pytest $(in_two) -m "not long and not control and not deployment and not ordinary and not apart and not outage and not package"

outages: setup ## test one part killed, frozen or cut off at its exact moment, and abuse of the web (some 7 minutes)
	@exec $(python) -m pytest -m "outage and not long"

apart: setup ## test that one wrong tenant, server or setting reaches no other (6 minutes)
	@exec $(python) -m pytest $(in_two) -m "apart and not long"

ordinary: setup ## test agents that raise, end, start slowly and are left, and programs of others (5 minutes)
	@exec $(python) -m pytest $(in_two) -m "ordinary and not long"

deployments: setup ## test restarts of every process and random kills under load, on one machine and several (5 minutes)
	@exec $(python) -m pytest -m "deployment and not long"

package: setup ## build the wheel, install it in empty environments, one for each kind of machine, and run it (6 minutes)
	@exec $(python) -m pytest -m package

controls: setup ## test that the campaign fails with each safeguard taken out (12 minutes)
	@exec $(python) -m pytest -n 2 -m control

faults: setup ## run the tests that take minutes or want a quiet machine (21 minutes)
	@exec $(python) -m pytest -m long

fuzz: setup ## send some thousands of made-up requests to a whole stack, by its OpenAPI document
	@USHER_FUZZ_EXAMPLES=400 exec $(python) -m pytest --capture=no tests/acceptance/test_openapi.py

check: $(installed) ## check format, lint, types, secrets and known advisories, exactly as CI does
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	.venv/bin/lint-imports --no-cache
	$(python) -m mypy --strict $(checked) bench
	$(python) -m bandit --quiet --configfile pyproject.toml --recursive $(checked)
	! git rev-parse || git ls-files -z | xargs -0 .venv/bin/detect-secrets-hook --baseline .secrets.baseline
	.ci/advisories

# `make campaign CAMPAIGN="--seed 7 --sessions 100 --kills 15 --rounds 1"` runs another one and reports
# beside its evidence. What has been run is kept in .run/campaign, a round of ten minutes each; an
# interrupted campaign goes on from there.
campaign: setup ## kill processes at random for three hours, and report on every session
	@exec $(python) -m tests.faults.campaign --out .run/campaign \
		--report $(if $(CAMPAIGN),.run/campaign/report.md,docs/campaign.md) \
		--command 'make campaign$(if $(CAMPAIGN), CAMPAIGN="$(CAMPAIGN)")' $(CAMPAIGN)

monitoring: setup ## check alerts and metrics with Prometheus's promtool (built once, 3-5 minutes)
	@exec $(python) -m tests.support.promtool

# `make bench BENCH="--quick"` takes 25 minutes, `BENCH="--only http,join"` measures these alone; both
# report in .run/bench. What has been measured is kept there, so that an interrupted run goes on.
bench: setup $(bench_installed) ## compare Usher with the alternatives (an hour and a half alone on the machine)
	@exec $(bench_python) -m bench $(if $(BENCH),$(BENCH),--report docs/benchmarks.md)

setup: $(installed) ## install everything that the other targets need, and start nothing
	@$(python) -m devstack provision

clients: $(installed) ## add, list, show, rotate, disable clients: make clients ARGS="list"
	@exec $(python) -m dispatcher.cli.clients $(ARGS)

vendor: $(installed) ## renew LiveKit's SDK in the page, from tests/browser/package-lock.json
	@cd tests/browser && npm ci --ignore-scripts --engine-strict=false --no-audit --no-fund
	@exec $(python) -m devstack.vendor

screenshots: setup ## renew the pictures of every page in docs/screenshots: light, dark, on a phone
	@exec $(python) -m tests.browser.screenshots

clean: ## remove everything that make has made here
	rm -rf .venv .venv-bench .tools .run build *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov tests/browser/node_modules examples/react/node_modules examples/react/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Usher itself, so that Celery finds its commands: a link to this folder, made without a network.
# Setuptools warns at length that it is one.
$(installed): $(packages) pyproject.toml
	@PYTHONWARNINGS=ignore $(python) -m pip install --quiet --disable-pip-version-check \
		--root-user-action ignore --no-index --no-deps --no-build-isolation --editable .
	@touch $@

# The list is whole, so pip need not look for what its packages want (`--no-deps`). pip before 23.3, which Python 3.11
# brings along, did so past the list for `coverage[toml]`, and refused it as soon as a newer coverage was out.
$(packages): requirements-dev.txt
	@if test -z "$(PYTHON)" || ! "$(PYTHON)" -c '$(is_new_enough)' 2>/dev/null; then \
		echo "Usher needs Python 3.11 or newer with its venv module (Debian: python3-venv)." \
			"Install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "[1/4] installing Python packages (1-2 min the first time)"
	@$(PYTHON) -m venv --clear .venv
	@$(python) -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
		--no-deps --require-hashes --requirement requirements-dev.txt
	@touch $@

$(bench_installed): requirements-bench.txt $(installed)
	@echo "installing the contenders of the benchmark (1-2 min the first time)"
	@$(PYTHON) -m venv --clear .venv-bench
	@$(bench_python) -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
		--no-deps --require-hashes --requirement requirements-bench.txt
	@touch $@
