# make vocode: hear it. make test: everything is checked. Both set up .venv by themselves on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: vocode test lint bench reliability demo page docs pictures clean

vocode: .venv/core
	$(BIN)/flowavenet vocode tests/data/tacotron2.npy tests/data/lj.flac -o out --picture

# two tests at a time, of one thread each: most are too small to share among threads
test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: .venv/dev
	$(BIN)/ruff check .

# What everything costs on this machine: docs/benchmark.md, and all figures and a picture beside it. Leave the machine alone
# meanwhile. flowavenet is the published model, 182.6 M weights, here with random ones.
bench: .venv/core
	mkdir -p docs
	$(BIN)/flowavenet benchmark lapflow-speech-22k lapflow-stream-22k flowavenet-speech-22k flowavenet \
		--precision float32 --precision bfloat16 \
		--seconds 5 --seconds 1 --seconds 60 --batch 1 --batch 16 --stream 8 --stream 32 --stream 128 \
		--train 1 --train 4 --repeats 5 --limit 20 --report docs/benchmark.md

# Fuzzing, kills, full disks, load: docs/reliability.md. Hours; leave the machine alone meanwhile.
reliability: .venv/dev
	$(BIN)/python -m tests.campaigns

# Every shipped clip at four temperatures.
demo: .venv/core
	for t in 0.0 0.5 0.8 1.0; do $(BIN)/flowavenet vocode tests/data -o out/demo/temperature-$$t --temperature $$t --picture; done

page: .venv/page
	$(BIN)/flowavenet demo

# The documentation as a site, out/docs/index.html; a warning is an error.
docs: .venv/dev
	$(BIN)/mkdocs build --strict

# The pictures in docs/, drawn from the shipped lapflow.
pictures: .venv/core
	$(BIN)/python docs/pictures.py

.venv/core: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[plot]'
	touch $@

.venv/page: .venv/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out build *.egg-info
