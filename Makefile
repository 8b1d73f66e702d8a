# Everything runs in .venv, which is made from nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
DEMO ?= demo
BENCH ?= benchmarks/results

.PHONY: help install demo test bench lint types docs check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate, train, evaluate, export, serve and attribute; results in $(DEMO)/"
	@echo "make test    run the tests"
	@echo "make bench   measure operators, losses, encoders, exports and serving on this CPU; results in $(BENCH)/"
	@echo "make lint    check style and the directions of imports; make types: check types"
	@echo "make docs    build the guides and the API reference; open docs/_build/index.html"
	@echo "make check   lint, types, docs and test"
	@echo "make clean   remove $(VENV)"

install: $(VENV)/.installed

# pip reads dependency groups from 25.1 on; the one in a new environment may be older.
# nvidia-pytriton carries the server itself; what it declares to need (numpy < 2) is for another use of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bmrl: expected Python 3.11 or newer, got %d.%d; run: make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --editable '.[train,pretrained,export,serve]' --group dev
	$(PIP) --no-deps nvidia-pytriton==0.7.0
	touch $@

demo: install
	$(BIN)/bmrl demo --out $(DEMO)

test: install
	# More processes than cores: tests of servers wait more than they compute.
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 25

bench: install
	$(PIP) --group bench
	$(BIN)/python -m pytest benchmarks --quiet --benchmark-disable-gc --benchmark-columns=median,iqr,rounds --out $(BENCH)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: install
	$(BIN)/mypy

docs: install
	$(BIN)/python -m sphinx --conf-dir docs --fail-on-warning --fresh-env --quiet . docs/_build

check: lint types docs test

clean:
	rm -rf $(VENV)
