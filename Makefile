# Two commands do everything: `make demo` and `make test`. Both build what they need in .venv first.
PYTHON ?= python3
VENV := .venv
BENCH := $(VENV)/bench
BIN := $(VENV)/bin
PLUGINS := plugins/ampd-bytegpt plugins/ampd-digits
SECONDS ?= 300

.PHONY: demo test lint campaigns bench clean

demo: $(VENV)/installed  ## train the byte transformer on real text, in the foreground
	$(BIN)/ampd start --config plugins/ampd-bytegpt/job.toml

# Hundreds of processes are started, each of which would compile ampd anew where the environment forbids to keep bytecode.
test: $(VENV)/installed-dev  ## the whole suite; under 10 minutes on 2 cores
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

campaigns: $(VENV)/installed-dev  ## seeded fault and load campaigns, SECONDS in all
	$(BIN)/python -m tests.campaigns --seconds $(SECONDS)

bench: $(BENCH)/installed  ## what a step costs against a loop by hand and against peers; writes tests/bench/RESULTS.md
	$(BENCH)/bin/python -m tests.bench

clean:
	rm -rf $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . $(PLUGINS:%=-e %)
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The peers get an environment of their own that sees ours, so that they never come into .venv nor bring another torch.
$(BENCH)/installed: $(VENV)/installed-dev tests/bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BIN)/python -c 'import site; print("import site; site.addsitedir(%r)" % site.getsitepackages()[0])' \
	    > $$($(BENCH)/bin/python -c 'import site; print(site.getsitepackages()[0])')/ampd.pth
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/bench/requirements.txt
	touch $@
