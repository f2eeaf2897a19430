# `make` lists the targets. Everything runs in .venv, which the targets make and keep up to date.

VENV := .venv
RUN := $(VENV)/bin/python
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)

ASSETS ?= ../shared/assets
PHOTOS ?= $(ASSETS)/photos/train
EVAL_PHOTOS ?= $(ASSETS)/photos/eval
PAINTINGS ?= $(ASSETS)/paintings
LOSS_NETWORK ?= $(ASSETS)/loss_network/vgg19_relu3_4_fp16.safetensors
# Of the documentation, those that run in a browser, which has to be another one.
PAGE_EXAMPLES := tests/documentation/test_blocks.py::test_a_page_does_in_a_browser_what_is_said_of_it
BENCHMARKS ?= engine serve batching shared memory tiles live training

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve cluster test test-deploy test-page soak check lint docs format bench train zoo-check zoo-docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

serve: $(RUNTIME) ## start the service on http://127.0.0.1:8000 (ATELIER_HOST, ATELIER_PORT)
	@exec $(RUN) -m service

cluster: $(RUNTIME) ## start the service on a Ray cluster of this machine, at http://127.0.0.1:8000
	@$(RUN) -m pip install -q -c constraints.txt -e '.[cluster,cpu]'
	@RAY_USAGE_STATS_ENABLED=0 exec $(VENV)/bin/serve run deploy/ray/serve.yaml

test: $(DEV) ## run every test (PYTEST_ARGS="-k gate")
	$(RUN) -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-deploy: $(DEV) ## image, load balancer, scraping, cluster: 10 minutes (DEPLOY_ARGS="-k nginx")
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev,cluster]'
	$(RUN) -m pytest -p no:cacheprovider tests/deploy $(DEPLOY_ARGS)

test-page: $(DEV) ## the page in Debian's chromium: 3 minutes (PAGE_ARGS="-k keys")
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev,page]'
	$(RUN) -m pytest -p no:cacheprovider tests/page $(PAGE_ARGS)
	$(RUN) -m pytest -p no:cacheprovider $(PAGE_EXAMPLES)

soak: $(DEV) ## abuse, overload, faults, reloads: 25 minutes (SOAK_ARGS="-k load")
	$(RUN) -m pip install -q -c constraints.txt -e '.[soak]'
	$(RUN) -m pytest -p no:cacheprovider tests/soak $(SOAK_ARGS)

check: lint ## lint, then the quick tests
	$(RUN) -m pytest -n auto --dist worksteal -m "not slow" $(PYTEST_ARGS)

lint: $(DEV) ## formatting, lint, types, import rules
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

docs: $(DEV) ## build the documentation as a site, in build/docs
	$(RUN) -m properdocs build --quiet --strict --config-file mkdocs.yml
	@echo "build/docs/index.html"

format: $(DEV) ## rewrite the sources the way `make check` wants them
	$(RUN) -m ruff check --fix-only .
	$(RUN) -m ruff format .

bench: SHELL := bash
bench: $(DEV) ## run BENCHMARKS (BENCH_ARGS=--quick); a full run goes to benchmarks/results
	@set -o pipefail; failed=; mkdir -p benchmarks/results; results=$$(mktemp -d); \
	for name in $(BENCHMARKS); do \
		echo "== $$name"; \
		$(RUN) -m "benchmarks.$$name" $(BENCH_ARGS) | tee "$$results/$$name.txt" \
			|| failed="$$failed $$name"; \
	done; \
	[ -n "$(BENCH_ARGS)" ] || mv "$$results"/*.txt benchmarks/results/; rm -rf "$$results"; \
	[ -z "$$failed" ] || { echo "make bench: bounds that do not hold:$$failed" >&2; exit 1; }

train: $(DEV) ## train STYLE=starry-night into runs/ (PHOTOS, PAINTINGS, LOSS_NETWORK); continues a run
	@test -f "trainer/recipes/$(STYLE).toml" || { \
		echo "make train: name a style, as in make train STYLE=starry-night; there are:" \
			$(patsubst trainer/recipes/%.toml,%,$(wildcard trainer/recipes/*.toml)) >&2; exit 2; }
	@test -d "$(PHOTOS)" && test -f "$(LOSS_NETWORK)" || { \
		echo "make train: set PHOTOS to a folder of photographs (now $(PHOTOS)) and LOSS_NETWORK" \
			"to the VGG-19 weights (now $(LOSS_NETWORK));" \
			"$(RUN) -m trainer loss-network --help says where those come from" >&2; exit 2; }
	$(RUN) -m trainer train "trainer/recipes/$(STYLE).toml" --photos "$(PHOTOS)" \
		--paintings "$(PAINTINGS)" --loss-network "$(LOSS_NETWORK)" --out "runs/$(STYLE)" --resume

zoo-check: $(DEV) ## hold the shipped styles to their gates (ZOO_ARGS="--write starry-night")
	@test -d "$(EVAL_PHOTOS)" && test -d "$(PAINTINGS)" && test -f "$(LOSS_NETWORK)" || { \
		echo "make zoo-check: set EVAL_PHOTOS to the evaluation photographs (now $(EVAL_PHOTOS))," \
			"PAINTINGS to the folder of the recipes' pictures (now $(PAINTINGS)) and LOSS_NETWORK" \
			"to the VGG-19 weights (now $(LOSS_NETWORK))" >&2; exit 2; }
	$(RUN) -m trainer zoo-check --photos "$(EVAL_PHOTOS)" --paintings "$(PAINTINGS)" \
		--loss-network "$(LOSS_NETWORK)" $(ZOO_ARGS)

zoo-docs: $(DEV) ## write docs/styles.md, its contact sheets and the gallery
	$(RUN) -m trainer zoo-docs $(ZOO_ARGS)

clean: ## remove .venv, caches and build leftovers (keeps runs/)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamps are written last, so that an install that was interrupted is done again.
$(RUNTIME): pyproject.toml constraints.txt
	@$(make-venv)
	$(RUN) -m pip install -c constraints.txt -e '.[cpu]'
	@touch $@

$(DEV): pyproject.toml constraints.txt
	@$(make-venv)
	$(RUN) -m pip install -c constraints.txt -e '.[dev]'
	@touch $(RUNTIME) $@

# A .venv whose pip does not run (interrupted, or its Python is gone) is made anew.
# ensurepip is asked for because Debian splits it off; such a Python makes a venv without pip.
define make-venv
rm -f $(RUNTIME) $(DEV); \
$(RUN) -m pip --version >/dev/null 2>&1 && exit; \
for python in $(PYTHONS); do \
	if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1; then exec "$$python" -m venv --clear $(VENV); fi; \
done; \
echo "Atelier needs Python 3.11 or newer with its venv module; none of these is one: $(PYTHONS)." \
	"Install one and name it: PYTHON=python3.12 make $(or $(MAKECMDGOALS),serve)" >&2; exit 1
endef
