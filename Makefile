# From nothing but Python 3.11 to 3.14 and make: the first target that needs it builds .venv from constraints.txt, and
# builds it on when pyproject.toml or constraints.txt change. PYTHON=python3.12 chooses the interpreter.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test lint format bench protos clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?=
BENCH_ARGS ?= all

# An environment knows where it was made: its scripts hold the path, so a moved or copied folder gets a new one.
ifneq ($(wildcard $(VENV)/made-in),)
ifneq ($(shell cat $(VENV)/made-in),$(CURDIR))
$(shell rm -rf $(VENV))
endif
endif
# So does one whose interpreter is gone, or is another one than PYTHON asks for.
identify := -c 'import sys; print(*sys.version_info[:3], sys.base_prefix)' 2>/dev/null
ifneq ($(wildcard $(VENV)),)
has := $(shell $(BIN)/python $(identify))
wants := $(if $(PYTHON),$(shell $(PYTHON) $(identify)),$(has))
ifeq ($(wants),)
$(if $(has),$(error PYTHON=$(PYTHON) does not run))
endif
ifneq ($(has),$(wants))
$(shell rm -rf $(VENV))
endif
endif

help:  ## List the targets.
	@echo 'penstock: market ticks in, predictions out.'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

run: $(VENV)/installed-run  ## Show the main job: simulate a market (or take TICKS=file), train, serve, replay, report.
	@$(BIN)/python -m penstock_tuning.showcase $(if $(TICKS),--ticks "$(TICKS)") $(RUN_ARGS)

test: lint  ## Lint, then run every test (PYTEST_ARGS="-k rings" limits them).
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## Check style, format, types and the arrows between the rooms.
	@failed=''; \
	for check in 'ruff check .' 'ruff format --check .' 'mypy' 'lint-imports'; do \
	  $(BIN)/$$check || failed="$$failed [$$check]"; \
	done; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed" >&2; exit 1; }

format: $(VENV)/installed-dev  ## Format the code, and mend what ruff can.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/installed-run  ## Measure every published number (BENCH_ARGS="grpc --json" takes one).
	@$(BIN)/penstock-bench $(BENCH_ARGS)

protos: .tools/protoc/installed  ## Generate the modules of protos/ anew, with the oldest supported generator.
	@protos/generate.sh

clean:  ## Remove everything that make built, the environment included.
	rm -rf $(VENV) .tools dist build run .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A separate target, so that a second install reuses the interpreter chosen by the first.
$(VENV)/made-in:
	@python=$$(PYTHON="$(PYTHON)" .ci/choose-python) || exit 1; \
	$(PIP) --version >/dev/null 2>&1 || { echo "Making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); }
	@printf '%s\n' "$(CURDIR)" > $@

# What `make run` needs. The build back end comes first and pinned, so that the build is not isolated and not a surprise.
$(VENV)/installed-run: $(VENV)/made-in pyproject.toml constraints.txt
	@[ -e $(VENV)/installed-dev ] && [ ! $(VENV)/installed-dev -ot pyproject.toml ] \
	  && [ ! $(VENV)/installed-dev -ot constraints.txt ] && touch $@ && exit 0; \
	echo "Installing penstock into $(VENV) (the first time takes a minute)"; \
	$(PIP) install --quiet -c constraints.txt hatchling editables \
	  && $(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[daemon,files,report,train]' \
	  && touch $@

# What developers need beside.
$(VENV)/installed-dev: $(VENV)/installed-run pyproject.toml constraints.txt
	@echo "Installing the tools of developers into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# The generator lives apart: its output must load on the oldest runtime, and its last wheels are for Python 3.12.
.tools/protoc/installed: protos/constraints.txt
	@python=$$(PYTHON="$(PYTHON)" .ci/choose-python 12) || exit 1; \
	echo "Making .tools/protoc with $$python"; \
	rm -rf .tools/protoc && "$$python" -m venv .tools/protoc
	@.tools/protoc/bin/python -m pip --disable-pip-version-check install --quiet -r protos/constraints.txt
	@touch $@
