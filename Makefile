# `make demo` and `make test` each set up everything they need in .venv on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-versions lint format docs pictures tiny small clean

demo: $(VENV)/.installed
	$(BIN)/emostream demo

# One thread a process: two processes of two threads each thrash on a small machine. Files stay whole (tests/schedule.py).
TESTS ?= tests
test: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.system_packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

# The lowest and the newest versions that pyproject.toml allows, each in an environment of its own, made anew.
test-versions:
	rm -rf $(VENV)-lowest $(VENV)-newest
	$(PYTHON) -m venv $(VENV)-lowest && $(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install -q -e ".[onnx,train,dev,docs]"
	$(VENV)-newest/bin/python -m tests.version_bounds onnx train dev docs > $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pip install -q -e . -r $(VENV)-lowest/requirements.txt
	@status=0; for kind in lowest newest; do \
	  touch $(VENV)-$$kind/.installed $(VENV)-$$kind/.installed-dev; \
	  $(MAKE) test VENV=$(VENV)-$$kind || status=$$?; \
	done; exit $$status

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What is generated from the code and the results, then the site in site/; any warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/message_reference.py
	$(BIN)/python benchmarks/tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pictures in README.md and docs/, from a live run on the demo clip.
pictures: $(VENV)/.installed-dev
	$(BIN)/python docs/pictures.py

# The whole recipe of `tiny` in runs/tiny: hours on two cores; an interrupted run is continued.
SEEDS ?= 0
tiny: $(VENV)/.installed-dev
	$(BIN)/python -m training.recipe.tiny --out runs/tiny --seeds $(SEEDS)

# The model that knows people, from a folder of corpora of them (docs/corpora.md); an interrupted run is continued.
small: $(VENV)/.installed-dev
	$(BIN)/python -m training.recipe.small --corpora "$(CORPORA)" --out runs/small --seeds $(SEEDS)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[onnx]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[onnx,train,dev,docs]"
	touch $@ $(VENV)/.installed
