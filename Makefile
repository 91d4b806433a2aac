# Everything starts here; `make` alone lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
export PYTHON
BIN := .venv/bin
# Two workers suit two cores: most tests wait for ssh.
JOBS ?= auto

.PHONY: help install dev demo test test-long screenshots lint fmt types docs reference bench lock clean

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install:  ## make .venv/bin/bart and .venv/bin/bartizan; touch nothing else
	@scripts/system-packages python3-venv openssh-client
	@scripts/install requirements.txt

dev: install
	@scripts/install requirements-dev.txt

demo: $(if $(SSO),dev,install)  ## watch the product work, with real ssh and sshd, in under a minute (SSO=1: with an identity provider)
	@scripts/system-packages openssh-server
	@$(if $(SSO),$(BIN)/python -m tests.demo_sso,$(BIN)/bartizan demo)

test: dev  ## run all tests that take less than minutes (ARGS="-k word" narrows)
	@scripts/system-packages openssh-server zstd rsync sqlite3 chromium
	@$(BIN)/python -m tests.idp
	@$(BIN)/pytest -n $(JOBS) --dist loadscope $(ARGS)

test-long: dev  ## run the tests that take minutes
	@scripts/system-packages openssh-server zstd rsync sqlite3
	@HYPOTHESIS_PROFILE=long $(BIN)/pytest -m property -n $(JOBS) $(ARGS) || [ $$? = 5 ]  # 5: ARGS chose none of these
	@$(BIN)/pytest -m long $(ARGS) || [ $$? = 5 ]

screenshots: dev  ## a picture of every page in every state, light and dark, 400 px to 4K, in site/screenshots
	@scripts/system-packages openssh-server zstd chromium
	@$(BIN)/python -m tests.web.screenshots site/screenshots

lint: dev  ## ruff, and the import contracts between the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

fmt: dev  ## put the code into shape
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

types: dev  ## mypy --strict over the four rooms
	@$(BIN)/mypy

docs: dev  ## build the documentation into site/, strictly; fails when a generated page is stale
	@$(BIN)/python scripts/reference.py --check
	@$(BIN)/zensical build --strict --clean

reference: dev  ## write the generated pages in docs/reference anew
	@$(BIN)/python scripts/reference.py

bench: install  ## measure against stock OpenSSH on this machine
	@scripts/system-packages openssh-server
	@$(BIN)/python -m tests.bench $(ARGS)

lock: dev  ## choose the newest allowed versions and write both lock files
	@scripts/lock

clean:  ## remove what these targets made, .venv included
	@rm -rf .venv tests/idp/node_modules build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache
