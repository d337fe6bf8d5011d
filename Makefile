# make vocode: hear it. make test: everything is checked. Both set up .venv by themselves on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: vocode test lint bench demo clean

vocode: .venv/core
	$(BIN)/flowavenet vocode samples -o out --picture

test: .venv/dev
	$(BIN)/python -m pytest -q

lint: .venv/dev
	$(BIN)/ruff check .

.venv/core: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[plot]'
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out build *.egg-info
