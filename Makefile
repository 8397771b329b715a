# Two commands are all a newcomer needs:  make demo   make test
BIN := .venv/bin
# Not --quiet: it would not count the warnings that are faults here.
SITE := mkdir -p build; NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict >build/site.log 2>&1 || { cat build/site.log; exit 1; }

# Where a machine forbids it, each process compiles our sources anew as it starts, which no installed one does: the tests
# start hundreds, and a benchmark of the start would be of that.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test coverage drill fuzz mutate check docs release-check bench bench-long bench-skill models setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a real recording through the real daemon, in half a minute"
	@echo "make test    every test but the drills"
	@echo "make coverage  the same, and which statements they pass: a third longer"
	@echo "make drill   the tests that take long: faults, load, days of data"
	@echo "make fuzz    random bytes for whatever reads bytes from outside, a minute each"
	@echo "make mutate  breaks the ring, the cutter, the trigger and the acknowledgement, line by line, in hours"
	@echo "make check   format, lint, types, import rules, generated files, links, wheel, known vulnerabilities"
	@echo "make release-check  wheel and sdist in dist/, tried in a bare environment"
	@echo "make docs    the documentation as a site in build/site"
	@echo "make bench   how fast it is: a table for docs/explanation/performance.md, in 20 minutes"
	@echo "make bench-long   latency over minutes, networks, loader;  make bench-skill   how good the models are"
	@echo "make models  builds the models again from their recipes, in hours"

setup:
	@scripts/setup

demo: setup
	@$(BIN)/quake-streamer demo --log-level warning

# One thread for each of the two: OpenMP's threads spin while they wait, and four on two cores would wait for one another.
test: setup
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# Apart from `test`: tracing costs a third of its time, and no number of it decides anything.
coverage: setup
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

drill: setup
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "drill and alone"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "drill and not alone" -n 2 --dist worksteal

fuzz: setup
	@$(BIN)/python -W ignore tests/fuzz/fuzz.py $(SECONDS)

# EACH=70: so many mutants of each file.  docs/explanation/mutation.md
mutate: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore scripts/mutate

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m quake.schema | diff - docs/reference/alert.schema.json
	@$(BIN)/python -m trainer.reference | diff - docs/reference/recipe.md
	@$(BIN)/python -m scripts.reference --check
	@$(BIN)/python deploy/grafana/night_watch.py | diff - deploy/grafana/dashboards/night-watch.json
	@scripts/check_deploy
	@$(SITE)
	@$(BIN)/python scripts/release
	@$(BIN)/python scripts/audit

# Wheel and sdist, tried in an environment of their own;  scripts/release --download  with what pip finds.
release-check: setup
	@$(BIN)/python scripts/release

# Searching needs a server:  python3 -m http.server --directory build/site
docs: setup
	@$(SITE)
	@echo build/site/index.html

# Nothing else should run meanwhile. Writes its table into docs/explanation/performance.md.
bench: setup
	@$(BIN)/python -W ignore -m benchmarks.performance

bench-long: setup
	@$(BIN)/python benchmarks/latency.py
	@$(BIN)/python -m benchmarks.live
	@$(BIN)/python benchmarks/networks.py
	@$(BIN)/python benchmarks/loader.py

bench-skill: setup
	@$(BIN)/python -m benchmarks.skill models/zoo/detector.pt
	@$(BIN)/python -m benchmarks.false_alarms
	@$(BIN)/python -m benchmarks.characteriser --model models/zoo/characteriser.pt
	@$(BIN)/python -m benchmarks.robustness models/zoo/detector.pt
	@$(BIN)/python -m benchmarks.made_earthquakes models/zoo/detector.pt

models: setup
	@scripts/models

clean:
	rm -rf .venv build dist mutants *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* demo-output streamer/dashboard/static/coastlines.*
