# Two commands: `make demo` and `make test`. Both make their own Python environment; neither needs a C compiler.
# Needed beforehand: make, and Python >= 3.11 with venv.
#
#   make demo  ARGS="--frames 500 --headless"    the simulated microscope (`mutoscope demo`)
#   make test                                    style, types, layers, then pytest in several processes
#   make test  ARGS="-k ring -x"                 the same with these options of pytest, in one process
#   make bench ARGS="--quick"                    every benchmark, one after the other
#   make docs  ARGS="serve"                      these pages as a site, into site/ (or served while they are written)
#   make clean                                   environments and caches away

PYTHON ?= python3
ARGS ?=

DEMO := .venv-demo
TEST := .venv
PAGE_SOURCES := $(wildcard web/*.json web/*.mjs web/build.py) $(shell find web/src -type f) src/mutoscope/viewers/luts.json
PLUGIN_SOURCES := fiji/pom.xml fiji/build.py $(shell find fiji/src -type f)
BUILD_FILES := pyproject.toml hatch_build.py $(wildcard src/mutoscope/frames/_core/*.[ch]) src/mutoscope/frames/_compile.py
SOURCES := $(shell find src -name '*.py')
PIP := -m pip --disable-pip-version-check --no-input -q

.PHONY: demo test lint bench docs clean
.DELETE_ON_ERROR:

demo: $(DEMO)/.installed
	@$(DEMO)/bin/mutoscope demo $(ARGS)

test: $(TEST)/.installed lint
	@$(TEST)/bin/python -m pytest --doctest-modules src tests $(or $(ARGS),-n auto)

lint: $(TEST)/.installed
	@$(TEST)/bin/ruff check
	@$(TEST)/bin/ruff format --check
	@$(TEST)/bin/mypy
	@$(TEST)/bin/lint-imports
	@$(TEST)/bin/python web/build.py --check
	@if command -v mvn >/dev/null; then $(TEST)/bin/python fiji/build.py --imagej; else echo "The plug-in of ImageJ is not built: there is no Maven"; fi

bench: $(TEST)/.installed
	@for name in ring bus storage live faults page viewers; do $(TEST)/bin/mutoscope bench $$name $(ARGS) || exit; done

docs: $(TEST)/.installed
	@NO_MKDOCS_2_WARNING=1 $(TEST)/bin/mkdocs $(or $(ARGS),build)

# The stamp is written last: an interrupted set-up starts again.
$(DEMO)/.installed: $(BUILD_FILES) $(SOURCES) $(PAGE_SOURCES) $(PLUGIN_SOURCES)
	@PYTHON=$(PYTHON) tools/environment $(DEMO)
	@echo "Installing Mutoscope into $(DEMO) (the first time takes a minute) ..."
	@$(DEMO)/bin/python $(PIP) install '.[page]'
	@touch $@

$(TEST)/.installed: $(BUILD_FILES)
	@PYTHON=$(PYTHON) tools/environment --system-packages $(TEST)
	@echo "Installing Mutoscope and its test tools into $(TEST) (the first time takes some minutes) ..."
	@$(TEST)/bin/python $(PIP) install --upgrade "pip>=25.1"
	@$(TEST)/bin/python $(PIP) install --editable . --group dev
	@$(TEST)/bin/python src/mutoscope/frames/_compile.py
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/mutoscope/frames/_core/*.so src/mutoscope/viewers/page/_static web/node_modules src/mutoscope/viewers/fiji/_plugin fiji/target
