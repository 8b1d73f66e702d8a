# Everything runs in .venv, which is made from nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
BENCH ?= benchmarks/results

.PHONY: install demo test bench lint types check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate, train, evaluate, export, serve and attribute; results in $(DEMO)/"
	@echo "make test    run the tests"
	@echo "make bench   measure operators, losses, encoders, exports and serving on this CPU; results in $(BENCH)/"
	@echo "make lint    check style; make types: check types; make check: both and the tests"
	@echo "make clean   remove $(VENV)"

install: $(VENV)/.installed

# nvidia-pytriton carries the server itself; what it declares to need (numpy < 2) is for another use of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bmrl: expected Python 3.11 or newer, got %d.%d; run: make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,pretrained,export,serve,dev]'
	$(BIN)/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0
	touch $@

demo: install
	$(BIN)/bmrl demo --out $(DEMO)

test: install
	# More processes than cores: tests of servers wait more than they compute.
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pytest benchmarks --quiet --benchmark-disable-gc --benchmark-columns=median,iqr,rounds --out $(BENCH)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV)
