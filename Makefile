# make demo: from nothing to generated digits.   make test: the whole fast suite.   Each sets itself up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CORE   := $(VENV)/.core
STAMP  := $(VENV)/.installed
# two processes of one thread each: small tensors gain nothing from threads. Byte code is kept, whatever the environment
# says: without it each of the many processes that tests start compiles every module again.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-slow gpu-check coverage evidence design-space docs pictures check clean

# what a user needs; the tests add every extra
$(CORE): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $(CORE)

$(STAMP): $(CORE)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(CORE)
	$(BIN)/sfumato demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

# a GPU against the CPU, then its speed as a page; without CUDA both say that they were skipped
gpu-check: $(STAMP)
	$(BIN)/python -m pytest -m '' -rs tests/gpu
	$(BIN)/python benchmarks/gpu.py --out docs/results/gpu.md

# the share of the source's lines that the fast suite runs (what tests start as processes of their own is not counted)
coverage: $(STAMP)
	$(PYTEST) --cov --cov-report=
	$(BIN)/python -m coverage report --skip-covered --sort=cover

evidence: $(STAMP) design-space
	$(BIN)/python -m pytest -p tests.evidence --evidence docs/results tests/parity tests/laws -m ''

# the pictures and the table of docs/design-space.md
design-space: $(STAMP)
	for axis in schedules grids draws weightings; do $(BIN)/sfumato plot $$axis --out docs/images/$$axis.png; done
	$(BIN)/sfumato explain all --out docs/recipes.md

# these pages as a site in build/site; nothing in it is fetched from elsewhere
docs: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# screenshots of the playground and the site, from RUN
pictures: $(STAMP)
	SFUMATO_RUN=$(RUN) SFUMATO_PICTURES=docs/images $(BIN)/python -m pytest -m '' -k 'a_picture_of' tests/app tests/docs

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist
