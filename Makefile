# Two commands do everything on a fresh machine: `make report` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find vheatbench suites -name '*.py' -o -name '*.yaml')

.PHONY: help report measure test test-avx2 trained bench docs release-check lint clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Everything else needs the environment; it is made once and again when the dependencies change.
$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing vheatbench and what it needs (torch: several GB the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# A run is kept until the code or a suite changes. Exit code 6 means that some cases failed: the report says which.
$(VENV)/.measured: $(VENV)/.installed $(SOURCES)
	@$(BIN)/vheatbench run || [ $$? -eq 6 ]
	@touch $@

report: $(VENV)/.measured  ## measure vHeat, Swin and ViT on this machine and write reports/overview.html
	@$(BIN)/vheatbench report overview -o reports/overview.html
	@echo "open reports/overview.html in a browser"

measure:  ## measure again, whether or not anything changed
	@rm -f $(VENV)/.measured
	@$(MAKE) --no-print-directory report

# Two processes that each begin with one half: what a file prepares for its tests is prepared once.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal
test: $(VENV)/.installed  ## run the tests
	@$(PYTEST)

# What oneDNN and torch compute by, and in which types, hangs on the processor's instructions.
AVX2_TESTS := $(addprefix tests/,subjects/heat/test_backends.py studies/erf/test_gradient.py \
  $(addprefix subjects/test_,$(addsuffix .py,catalog lean_autograd official operators paths)))
test-avx2: $(VENV)/.installed  ## run the tests that hang on the processor as on one without AVX-512
	@ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) $(AVX2_TESTS)

# The small models that the package ships: five seeds of four models and a larger one, side by side, kept when stopped.
TRAINED := trainings/conduction trainings/mini
trained: $(VENV)/.installed  ## train the small models again (an hour on two cores) and put their weights into the package
	@$(BIN)/vheatbench train --config conduction --jobs 2 --resume auto --checkpoints trainings/conduction --results results/learned
	@$(BIN)/vheatbench train --config conduction --override 'models=[vheat-mini]' --override seeds=1 \
	  --resume auto --checkpoints trainings/mini --results results/learned
	@$(BIN)/python scripts/ship_trained.py $(TRAINED)

BENCH ?= benchmarks
bench: $(VENV)/.installed  ## run the tests in benchmarks/ (BENCH="FILE -k NAME" for some) and add them to the history
	@$(BIN)/python -m pytest -q $(BENCH) --benchmark-json=$(VENV)/benchmarks.json
	@$(BIN)/vheatbench track add --pytest-benchmark $(VENV)/benchmarks.json
	@$(BIN)/vheatbench track show --case pytest: --metric all

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs  ## build the documentation site into site/, where any warning is an error
	@$(BIN)/mkdocs build --strict

$(VENV)/.release: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	@touch $@

release-check: $(VENV)/.release  ## build the wheel and try it with the newest and the oldest dependencies
	@$(BIN)/python scripts/check_release.py

lint: $(VENV)/.installed  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:  ## remove the environment and caches, keep results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
