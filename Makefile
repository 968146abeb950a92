# Three commands on a fresh clone: `make demo` (a first look), `make repro` (pipeline) and `make test`. The rest is for
# daily use.
PYTHON ?= python3.11
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE := 1
# The stages say `python`: it is the one of .venv, activated or not.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo repro test docs profile apply compare experiments ablations ablation-tables repeat tace-tables bench growth reference profiles-start leaked-copies lock clean

# The pipeline at its smallest, in minutes: few simulated patients, four methods, in the folder demo/ alone.
demo: .venv/installed
	@flipside demo

# The pipeline, then the ranked table.
repro: .venv/installed
	@flipside repro
	@flipside ranking

# Linter, types and tests; types are checked while the tests run.
test: .venv/installed
	ruff check flipside stages tests benchmarks docs notebooks setup.py
	mypy & types=$$!; python -m pytest -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; wait $$types && exit $$tests

# The site, into site/; its sources are in docs/.
docs: .venv/installed
	python -m docs.generate
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

# A profile's values into params.yaml: make profile P=gpu
profile: .venv/installed
	flipside profile $(P)

# Models trained on `dataset`, applied to another data set: make apply DATASET=kits19_slices [ROOT=/path]
apply: .venv/installed
	flipside apply --dataset "$(DATASET)" $(if $(ROOT),--root "$(ROOT)")

# Committed metrics and parameters against another revision, as CI posts them; fails where a number got worse than
# tolerances.yaml allows or dvc.lock is stale. SUMMARY: a file to which the page is appended.
REV ?= main
compare: .venv/installed
	@flipside compare --rev "$(REV)" $(if $(SUMMARY),--summary "$(SUMMARY)")

# dvc exp show with the columns that matter.
experiments: .venv/installed
	@flipside experiments

# The published ablations of experiments/, each row SEEDS times, as DVC experiments; then ours beside the published
# numbers. What has been run is not run again: make ablations ABLATIONS=table_2 SEEDS=3. AS_PUBLISHED=1: with the
# publications' own weights and faults.
ABLATIONS ?= table_1 appendix_a table_2 coin_aligned impact
SEEDS ?= 1
AS_PUBLISHED ?=
ROWS_AS = $(if $(AS_PUBLISHED),--as-published)
ablations: .venv/installed
	@for name in $(ABLATIONS); do flipside ablations $$name --seeds $(SEEDS) $(ROWS_AS) || exit 1; done
	dvc exp run --run-all -j 1
	@$(MAKE) --no-print-directory ablation-tables

# Ours beside the published numbers again, of the experiments that the commit has.
ablation-tables: .venv/installed
	@for name in $(ABLATIONS); do flipside ablation-tables $$name $(ROWS_AS) || exit 1; done

# The run trained again under other seeds, SEEDS trainings in all, into reports/trainings.json: first all generators, then
# the classifier too (ROWS=generators: only the former). What has been run is not run again, and a kill costs nothing.
ROWS ?= all
repeat: SEEDS = 3
repeat: .venv/installed
	@flipside repeat --seeds $(SEEDS) --rows $(ROWS)

# The tables of the TACE paper, ours beside the published numbers, of the run that stands in models/, reports/ and data/.
tace-tables: .venv/installed
	@flipside generator-table
	@echo
	@flipside tace-tables

# How much copies in both parts of a data set flatter its classifier (profile brain_mri).
leaked-copies: .venv/installed
	@python -m benchmarks.leaked_copies

# The pipeline's speed beside the work that no pipeline could spare.
bench: .venv/installed
	python -m benchmarks.speed

# How each stage's time grows with slices and with pixels; an hour.
growth: .venv/installed
	python -m benchmarks.growth

# Our steps beside those of the publications' codes, rebuilt.
reference: .venv/installed
	python -m benchmarks.reference

# Two steps of every training and one batch of every explanation of every profile, those for a GPU included, on the CPU.
profiles-start: .venv/installed
	FLIPSIDE_LARGE_PROFILES=1 python -m pytest -v tests/test_profiles_start.py

# The stamp is written last: an interrupted installation is done again. pip would compile the packages on one core; files
# of theirs that are no Python 3.11 are passed over, as by pip.
.venv/installed: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip==26.3
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# requirements.lock anew: what requirements.txt pulls in, each file's hash, for Linux, macOS and Windows.
lock: .venv/installed
	$(BIN)/python -m pip install --quiet uv==0.13.8
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line \
		--custom-compile-command "make lock" --output-file requirements.lock requirements.txt

# Remove all artifacts, finished and unfinished.
clean:
	rm -rf .scratch data demo demo.lock models
