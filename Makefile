# Batch-size schedules and grokking. `make` alone prints help.
ifneq ($(filter 1.% 2.% 3.%,$(MAKE_VERSION)),)
$(error GNU make 4 or newer is needed, this is $(MAKE_VERSION); on macOS: brew install make, then use gmake)
endif

STUDY ?= paper
RESULTS ?= results
DEVICE ?= auto
PRECISION ?=
THREADS ?= 1
SEEDS_PER_RUN ?= 1
LAUNCH ?=
PYTHON ?= python3
VENV ?= .venv
RECORD ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# VENV= (empty) uses PYTHON as it is: conda, a cluster's modules, a machine without network.
PY := $(if $(VENV),$(CURDIR)/$(VENV)/bin/python,$(PYTHON))
STAMP := $(if $(VENV),$(VENV)/installed)
DRIVER := $(if $(VENV),$(VENV)/driver)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
ifeq ($(shell test -w . && echo yes),yes)  # else PyTorch's own place
export TORCHINDUCTOR_CACHE_DIR ?= $(CURDIR)/.cache/inductor
export TRITON_CACHE_DIR ?= $(CURDIR)/.cache/triton
endif

COMMON = "$(STUDY)" --results "$(RESULTS)" $(if $(PRECISION),--precision "$(PRECISION)")
HOW = --device "$(DEVICE)" --threads "$(THREADS)"
# What LAUNCH reaches may have a GPU, or memory, that this machine lacks: there each run looks for itself.
PLANNED = $(HOW) $(if $(LAUNCH),--elsewhere)
# Without -j, as many runs go side by side as there are cores for THREADS each, or as a GPU's memory holds.
GIVEN = $(filter -j% --jobserver%,$(MAKEFLAGS))

.PHONY: help env quick all run report evidence site select pdf status verify lab test test-readme test-browser test-faults \
	test-slurm lint bench clean runs chromium slurm

help:
	@echo "How batch-size schedules change grokking. What make can do, to"
	@for group in see make check change; do \
		awk -F': |:.*## ' -v group="$$group it" '/^[a-z-]+:.*## / && $$2 == group { \
			printf "%-9s make %-12s %s\n", n++ ? "" : group, $$1, substr($$0, index($$0, group) + length(group) + 2)}' \
			$(firstword $(MAKEFILE_LIST)); done
	@echo "Settings: STUDY=$(STUDY) (name or path), RESULTS=$(RESULTS), DEVICE=$(DEVICE) (cpu, cuda),"
	@echo "PRECISION= (float32, tf32, bf16), SEEDS_PER_RUN=$(SEEDS_PER_RUN), THREADS=$(THREADS), LAUNCH=\"srun ...\","
	@echo "VENV=$(VENV) (VENV= takes PYTHON=$(PYTHON) as it is): see README and docs"

env: $(STAMP) ## make it: set up .venv from requirements.txt, nothing else

$(VENV)/installed: requirements.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "$(PYTHON) is not Python 3.11 to 3.14: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up $(VENV) with PyTorch and JupyterLab: some minutes, once"
	@"$(PYTHON)" -m venv "$(VENV)"
	@"$(PY)" -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@# The package is imported from where it is, from notebooks opened by hand too.
	@"$(PY)" -c 'import os, site; open(site.getsitepackages()[0] + "/grok_utils.pth", "w").write(os.getcwd())'
	@touch "$@"

quick: ## see it: small but real: results/quick/report.html
	@$(MAKE) all STUDY=quick SEEDS_PER_RUN=2

all: $(STAMP) ## make it: every missing run of STUDY, then its report
	@runs=$$("$(PY)" -m grok_utils plan $(COMMON) $(PLANNED) --seeds-per-run "$(SEEDS_PER_RUN)") || exit $$?; \
	if [ -z "$$runs" ]; then set --; echo "$(STUDY): all records found in $(RESULTS)"; else \
		set -- $$runs; jobs=$(if $(GIVEN),,$$1); shift; echo "$(STUDY): runs to make: $$#"; \
		echo "make status STUDY=$(STUDY) tells how they fare; whatever stops them, the next make goes on from there"; \
		set -- --after $(MAKE) -k $$jobs runs RUNS="$$*"; \
	fi; \
	exec "$(PY)" -m grok_utils report $(COMMON) "$$@"

runs: $(RUNS)

# A shell would keep make's SIGTERM to itself and leave what it started running; `exec` puts that in its place.
# run/ARM/SEEDS, as the plan names what is missing. The record itself is checked in the launched command and again
# here, where a lost node cannot hide it.
run/%:
	@exec $(LAUNCH) "$(PY)" -m grok_utils run $(COMMON) $(HOW) --schedule "$(word 1,$(subst /, ,$*))" --seeds "$(word 2,$(subst /, ,$*))"
	@study="$(STUDY)"; study="$${study##*/}"; study="$${study%.yaml}"; study="$${study%.yml}"; \
	test -f "$(RESULTS)/$$study/records/$(word 1,$(subst /, ,$*))-seed$(lastword $(subst $(comma), ,$(word 2,$(subst /, ,$*)))).parquet" || \
		{ echo "$@: ended without its record: make it again, and it goes on from its checkpoint" >&2; exit 1; }
comma := ,

run: $(STAMP) ## make it: one record: make run SCHEDULE=linear SEED=0
	@$(if $(and $(SCHEDULE),$(SEED)),,echo "say which: make run SCHEDULE=linear SEED=0" >&2; exit 2)
	@exec $(LAUNCH) "$(PY)" -m grok_utils run $(COMMON) $(HOW) --schedule "$(SCHEDULE)" --seeds "$(SEED)"

report: $(STAMP) ## see it: report.html from the records of STUDY
	@exec "$(PY)" -m grok_utils report $(COMMON)

evidence: $(STAMP) ## see it: the pages of many studies, and results/README.md
	@"$(PY)" -m grok_utils evidence --results "$(RESULTS)"

site: $(STAMP) ## see it: the pages as a web site (OUT=site)
	@"$(PY)" -m grok_utils site --results "$(RESULTS)" --out "$(or $(OUT),site)"

select: $(STAMP) ## make it: the tuned answer's next study files, from records
	@"$(PY)" -m grok_utils select --results "$(RESULTS)"

pdf: $(STAMP) ## see it: report.pdf of STUDY, tuned or evidence, by Chromium
	@"$(PY)" -m grok_utils pdf $(COMMON)

status: $(STAMP) ## see it: what of STUDY is done, running, failed, missing
	@"$(PY)" -m grok_utils status $(COMMON)

verify: $(STAMP) ## check it: check the records; train one again (RECORD=)
	@exec "$(PY)" -m grok_utils verify $(COMMON) $(if $(RECORD),--record "$(RECORD)")

lab: $(STAMP) ## change it: JupyterLab, with explore.ipynb open
	exec "$(PY)" -m jupyter lab --LabApp.default_url=/lab/tree/notebooks/explore.ipynb

test: $(STAMP) ## check it: the whole test suite, a process a core
	"$(PY)" -m pytest -q -n logical --maxprocesses 8 --dist worksteal

test-readme: $(STAMP) ## check it: the commands of README and docs, on tiny studies
	"$(PY)" -m pytest -q tests/commands

test-browser: $(STAMP) $(DRIVER) chromium ## check it: pages and JupyterLab in Chromium; installs it
	"$(PY)" -m pytest -q -n logical --maxprocesses 2 tests/browser

test-faults: $(STAMP) ## check it: kills, full disks, bad input; 10 minutes
	"$(PY)" -m pytest -q tests/faults

$(VENV)/driver: requirements-browser.txt $(STAMP)
	@"$(PY)" -m pip install --quiet --disable-pip-version-check -r requirements-browser.txt
	@touch "$@"

# $(call INSTALL,what,packages): by apt-get, where it may.
INSTALL = { test "$$(id -u)" = 0 && echo "Installing $(1)" && apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(2) >/dev/null; }

chromium: $(STAMP)
	@"$(PY)" -c 'from grok_utils.page.export import find_chromium; find_chromium()' 2>/dev/null || $(call INSTALL,Chromium,chromium) || \
		{ echo "Chromium was not found, and only root can apt-get it: install it, or give CHROMIUM=/path/to/it" >&2; exit 2; }

# -x: each test goes on from what the one before it left.
test-slurm: $(STAMP) slurm ## check it: an emulated SLURM cluster, as root
	"$(PY)" -m pytest -q -x tests/slurm

slurm:
	@test "$$(id -u)" = 0 || { echo "SLURM's daemons start only as root: run make test-slurm as root" >&2; exit 2; }
	@{ command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null || $(call INSTALL,SLURM,slurm-wlm munge) || \
		{ echo "SLURM was not found, and apt-get did not install it: install slurm-wlm and munge" >&2; exit 2; }

lint: $(STAMP) ## check it: style, errors, types, workflow files
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(PY)" -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: $(STAMP) ## check it: this machine's speed (DEVICE=cuda, OUT=folder)
	"$(PY)" -m benchmarks.$(if $(filter cuda,$(DEVICE)),cuda,cpu) $(if $(OUT),--out "$(OUT)")

clean: ## change it: remove .venv and caches; results stay
	rm -rf .venv .cache .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
