# TaskHub. Needs only python3 (3.11 or newer), make and gcc; everything else goes into .venv.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
CODE := taskhub broadcaster routes tests

# More processes than cores: tests wait for servers more than they work.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)

.PHONY: install develop help run test coverage bench lint format lock clean

# The bytecode is for those who run TaskHub and may not write beside its source, as the systemd unit.
install: .venv/.installed
	@$(BIN)/python -m compileall -q taskhub broadcaster routes
develop: .venv/.developing

help:
	@echo "make run      a development server with example tickets   ARGS=\"--port 9000\""
	@echo "make test     every test                                  ARGS=\"-k replay\""
	@echo "make coverage the same, and which lines they run; fails below 90 %"
	@echo "make bench    fan-out beside its peers and the targets    ARGS=\"--only light,sat --reps 1\""
	@echo "make lint     style, types and imports; make format mends the style"
	@echo "make install  only .venv, where taskhub is .venv/bin/taskhub; make develop adds the tools of the others"
	@echo "make lock     the lock files again                        UPGRADE=--upgrade"
	@echo "make clean    .venv and caches away"

# The locked environment, checked hash by hash, and this checkout in it (editable; its build backend is locked too).
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
.venv/.installed: requirements.lock requirements-build.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "TaskHub needs Python 3.11 or newer, and none was found; name one: make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || echo "installing into .venv; the first time, that takes a minute"
	@# Half of one, as where Debian's python3-venv is missing, must not be taken for one the next time.
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	$(PIP_INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# What only those who change TaskHub need is ten times as much.
.venv/.developing: .venv/.installed requirements-dev.lock
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# A development server with example tickets on the embedded database. ARGS="--port 9000" adds arguments.
run: install
	@exec $(BIN)/taskhub serve --demo $(ARGS)

# Everything, the files of tests in so many processes; JOBS=0 uses this one alone, as a debugger wants it.
# ARGS="-k replay" narrows it. What is missing and cannot be installed is named, and its tests are skipped.
# Bytecode is kept, whatever the shell says: each of the many processes would compile everything again.
test: export PYTHONDONTWRITEBYTECODE =
test: develop
	$(BIN)/python -m tests.provision
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -rs -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)
	@test -f .coverage || { echo "tests: make coverage tells which lines they run"; exit 0; }; \
		echo "tests: of all lines they ran $$($(BIN)/coverage report --format=total) % (make coverage, $$(date -r .coverage +%F))"

# The same tests, and which lines they run in all the processes that they start: for twice the processor time.
coverage: export PYTHONDONTWRITEBYTECODE =
coverage: develop
	$(BIN)/python -m tests.provision
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -rs -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=90

# The benchmarks. ARGS="--list" names them; peers that are not installed are named and left out.
bench: develop
	@exec $(BIN)/python -m tests.benchmarks $(ARGS)

lint: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)
	$(BIN)/lint-imports

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the lock files again; UPGRADE=--upgrade takes the newest versions that pyproject.toml allows.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header $(UPGRADE)
lock: develop
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --constraint requirements.lock --group dev --group test -o requirements-dev.lock
	$(LOCK) --constraint requirements-dev.lock --group build -o requirements-build.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
