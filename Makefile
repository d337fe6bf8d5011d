# make vocode: hear it. make test: everything is checked. Both set up .venv by themselves on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: vocode test lint bench demo clean

vocode: .venv/core
	$(BIN)/flowavenet vocode tests/data/tacotron2.npy tests/data/lj.flac -o out --picture

test: .venv/dev
	$(BIN)/python -m pytest -q

lint: .venv/dev
	$(BIN)/ruff check .

# The real-time factor of the shipped checkpoint on this machine.
bench: .venv/core
	mkdir -p out
	$(BIN)/flowavenet benchmark --json out/benchmark.json

# Every shipped clip at four temperatures.
demo: .venv/core
	for t in 0.0 0.5 0.8 1.0; do $(BIN)/flowavenet vocode tests/data -o out/demo/temperature-$$t --temperature $$t --picture; done

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
