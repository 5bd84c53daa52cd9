# One target per chore. Everything happens in .venv, which `make venv` makes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := $(VENV)/keras-oldest
# Most modules of TensorFlow, PyTorch and JAX are never imported: Python compiles those that are, when they are.
QUIETLY := --quiet --disable-pip-version-check --no-compile

# Where this is set, each of the thousands of interpreters that the tests start would compile Stoker anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv demo test stress faults resume-check lint format bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIETLY) --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# The oldest Keras that TensorFlow 2.18 takes, beside the newest: tests/feed/test_keras.py runs with both, with this
# one only some of its cells but for `make stress`.
$(OLDEST): $(STAMP)
	$(BIN)/python -m pip install $(QUIETLY) --no-deps --target $(OLDEST) keras==3.5.0
	touch $(OLDEST)

demo: $(STAMP)
	$(BIN)/stoker demo

# Two at a time: half of the tests wait for processes that start or end. Then those that measure, one by one. Only
# their files are read, as the others import every library that there is.
test: $(STAMP) $(OLDEST)
	$(BIN)/python -m pytest --numprocesses 2 -m "not stress and not alone"
	$(BIN)/python -m pytest -m "alone and not stress" $$(grep --recursive --files-with-matches --include='*.py' mark.alone tests)

# These take longer than the time after which a test counts as hanging, and its stacks are shown.
stress: $(STAMP) $(OLDEST)
	$(BIN)/python -m pytest -m stress --override-ini faulthandler_timeout=1800

# Every cell of the table of faults, with its seconds (docs/faults.md).
faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults -m "stress or not stress"

# Training that is killed by SIGKILL at random steps and resumed ends with the same weights (docs/resume.md).
resume-check: $(STAMP)
	$(BIN)/python -m tests.state.check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Some of the peers are needed nowhere else, so they are installed only here.
bench: $(STAMP)
	$(BIN)/python -m pip install $(QUIETLY) --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.first_batch

clean:
	rm -rf $(VENV) build dist src/*.egg-info
