# Two commands on a fresh machine: `make demo` runs the main job, `make test` runs the whole suite.
# Both make .venv and install what they need; run them as often as you like, in any order.

PYTHON ?= python3
# Extra words for pip, for example where to find CPU builds of PyTorch.
PIP_ARGS ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
DEMO ?= demo-run

.PHONY: demo test test-haswell lint types check clean

demo: .venv/.demo
	$(BIN)/python -m onnxpress run zoo:digits_resnet --output "$(DEMO)"

test: .venv/.test
	$(BIN)/python -m pytest

# int8 arithmetic on an emulated CPU without VNNI; needs QEMU's user mode (Debian, Ubuntu: apt install qemu-user).
test-haswell: .venv/.test
	.ci/haswell

lint: .venv/.test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: .venv/.test
	$(BIN)/python -m mypy

check: lint types test

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "Python's venv module is needed (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.created pyproject.toml constraints.txt
	$(INSTALL) --editable '.[torch]'
	@touch $@

.venv/.test: .venv/.created pyproject.toml constraints.txt
	$(INSTALL) --editable '.[torch,dev]'
	@touch $@ .venv/.demo

clean:
	rm -rf .venv "$(DEMO)" dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
