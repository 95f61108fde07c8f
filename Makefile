# From nothing but Python 3.11 to 3.14 and make: the first target that needs it builds .venv from constraints.txt, and
# builds it on when pyproject.toml or constraints.txt change. PYTHON=python3.12 chooses the interpreter.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test fuzz lint format bench gpu-check protos clean FORCE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROTOC_PIP := .tools/protoc/bin/python -m pip --disable-pip-version-check
PYTEST_ARGS ?=
# Two share what is compiled once; more of them compile it again side by side. 0 for one that can be debugged.
TEST_PROCESSES ?= 2
# In the order that tests/conftest.py gives, and not modules of many tests first.
SHARED_OUT := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# A run of the tests starts some hundred interpreters, and each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
FUZZ_ROUNDS ?= 10
BENCH_ARGS ?= all

help:  ## List the targets.
	@echo 'penstock: market ticks in, predictions out.'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

run: $(VENV)/installed-run  ## Show the main job: simulate a market (or take TICKS=file), train, serve, replay, report.
	@$(BIN)/python -m penstock_tuning.showcase $(if $(TICKS),--ticks "$(TICKS)") $(RUN_ARGS)

test: lint  ## Lint, then run every test (PYTEST_ARGS="-k rings" limits them).
	@$(BIN)/python -m pytest $(SHARED_OUT) $(PYTEST_ARGS)

fuzz: $(VENV)/installed-dev  ## Run the property tests on newly drawn cases, until one fails (FUZZ_ROUNDS=100).
	@round=0; while [ $$round -lt $(FUZZ_ROUNDS) ]; do \
	  round=$$((round + 1)); echo "Round $$round of $(FUZZ_ROUNDS)"; \
	  $(BIN)/python -m pytest $(SHARED_OUT) -q --hypothesis-profile=explore -m hypothesis $(PYTEST_ARGS) || exit 1; \
	done

lint: $(VENV)/installed-dev  ## Check style, format, types and the arrows between the rooms.
	@failed=''; \
	for check in 'ruff check .' 'ruff format --check .' 'mypy' 'lint-imports --no-logo'; do \
	  $(BIN)/$$check || failed="$$failed [$$check]"; \
	done; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed" >&2; exit 1; }

format: $(VENV)/installed-dev  ## Format the code, and mend what ruff can.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/installed-run  ## Measure every published number (BENCH_ARGS="grpc --json" takes one).
	@$(BIN)/penstock-bench $(BENCH_ARGS)

gpu-check:  ## Check this machine's GPU: tests and figures, in 8 minutes; PYTHON needs CuPy, Numba, grpcio and pytest.
	@"$${PYTHON:-python3}" tuning/penstock_tuning/bench/gpu_check.py $(GPU_CHECK_ARGS)

protos: .tools/protoc/installed  ## Generate the modules of protos/ anew, with the oldest supported generator.
	@protos/generate.sh

clean:  ## Remove everything that make built, the environment included.
	rm -rf $(VENV) .tools dist build run .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made-in: FORCE
	@PYTHON="$(PYTHON)" .ci/make-environment $(VENV)

# What `make run` needs. The build back end comes first and pinned, so that the build is not isolated and not a surprise.
$(VENV)/installed-run: $(VENV)/made-in pyproject.toml constraints.txt
	@echo "Installing penstock into $(VENV) (the first time takes a minute)"
	@$(PIP) install --quiet -c constraints.txt hatchling editables
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[daemon,files,report,train]'
	@touch $@

# What developers need beside.
$(VENV)/installed-dev: $(VENV)/installed-run pyproject.toml constraints.txt
	@echo "Installing the tools of developers into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# The generator lives apart: its output must load on the oldest runtime, and its last wheels are for Python 3.12.
.tools/protoc/made-in: FORCE
	@PYTHON="$(wildcard $(BIN)/python) python3.12 python3.11 python3" .ci/make-environment .tools/protoc 12

.tools/protoc/installed: .tools/protoc/made-in protos/constraints.txt
	@$(PROTOC_PIP) install --quiet -r protos/constraints.txt
	@touch $@
