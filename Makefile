# ftkit: `make` lists what there is.
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/READY
TINY := runs/tiny
START = train.until='{eval.exact_match: 0.6}'
WARM = train.until='{eval.exact_match_sampled: 0.3}' sample.temperature=1 eval.every=10
RECIPES = $(shell find recipes -name '*.yaml' | sort)

# The environment is completed when what it is made of changes, and made anew when it was moved or its interpreter
# is gone: its scripts hold absolute paths.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(READY) 2>/dev/null),$(CURDIR))
$(shell mv -f $(READY) $(VENV)/INCOMPLETE 2>/dev/null)
endif

.DEFAULT_GOAL := help
.PHONY: help setup tiny quickstart test check format format-check lint types layers doctests tests recipes docs bench-sft bench-dpo bench-dft \
  bench-negatives bench-rl bench-scale bench-plan peers reproduce-dft reproduce-rlvr decimals clean setup-vllm test-vllm test-slurm test-nodes test-kills test-matrix

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with ftkit in it (FTKIT_TORCH='torch==...' chooses the build of torch)
	@echo "$(VENV) is ready"

$(READY): pyproject.toml scripts/setup_env.sh
	@scripts/setup_env.sh $(VENV)

quickstart: tiny ## pretrain, sft, gen-negatives, dft, then disco, each measured before and after (minutes)
	@echo "== before: the fine-tuned start, on held-out sums and against its own wrong sums"
	@$(BIN)/ftkit eval $(TINY)/start --data $(TINY)/pool-held-out
	@echo "== dft: the right sum against the start's wrong ones"
	@$(BIN)/ftkit dft recipes/tiny/dft.yaml --resume
	@echo "== after"
	@$(BIN)/ftkit eval $(TINY)/dft --data $(TINY)/pool-held-out
	@$(BIN)/ftkit chat $(TINY)/dft --once '47+38='
	@echo "== disco: from an earlier start, sums that the model samples, judged by a verifier"
	@$(BIN)/ftkit eval $(TINY)/warm
	@$(BIN)/ftkit disco recipes/tiny/disco.yaml --resume
	@$(BIN)/ftkit eval $(TINY)/disco
	@echo "all of it lies in $(TINY): data, tokenizer, pools, and a folder for each run with its model and metrics"
	@echo "next: docs/quickstart.md goes on from here; \`make clean\` removes $(TINY), to begin anew"

tiny: $(READY) ## prepare under runs/tiny what the recipes in recipes/tiny need: data, models, pools (minutes)
	@$(BIN)/python scripts/prepare_arithmetic.py --out $(TINY)
	@$(BIN)/ftkit pretrain recipes/tiny/pretrain.yaml run=$(TINY)/base --resume
	@$(BIN)/ftkit sft recipes/tiny/sft.yaml run=$(TINY)/start $(START) --resume
	@$(BIN)/ftkit sft recipes/tiny/sft.yaml run=$(TINY)/warm $(WARM) --resume
	@$(BIN)/ftkit gen-negatives recipes/tiny/dft.yaml
	@$(BIN)/ftkit gen-negatives recipes/tiny/dft.yaml --held-out $(TINY)/pool-held-out

test: setup check ## what continuous integration runs: set up, then every check

check: format-check lint types layers tests recipes ## format, lint, types, layers, doctests, tests, recipes

format: $(READY) ## rewrite the code in its one format
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	@$(BIN)/ruff format .

format-check: $(READY)
	@$(BIN)/ruff format --check .

lint: $(READY) ## find mistakes and bad habits (ruff)
	@$(BIN)/ruff check .

types: $(READY) ## check the types (mypy, strict)
	@$(BIN)/mypy

layers: $(READY) ## check that imports run one way (import-linter)
	@$(BIN)/lint-imports

setup-vllm: ## make .venv-vllm with ftkit and vLLM in it, for sample.engine: vllm (minutes)
	@scripts/setup_vllm.sh

test-vllm: setup-vllm ## tests with the real vLLM, in this process and as a server (minutes)
	@OMP_NUM_THREADS=1 .venv-vllm/bin/pytest -m vllm tests/end_to_end

test-slurm: $(READY) ## tests on a real Slurm of two nodes, started here as root (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m slurm tests/slurm

test-nodes: $(READY) ## tests on two machines made here as root of network namespaces (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m netns tests/launch

test-matrix: $(READY) ## resume every method at every stage of ZeRO, with adapters and without (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "matrix or not matrix" tests/parallel/test_resume_on_ranks.py

test-kills: $(READY) ## kill processes of small runs at random moments, fifty times, and compare (an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/kill_runs.py --times 50

tests: $(READY) ## run the tests and the doctests, in two processes of one thread each
	@OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2

doctests: $(READY) ## run the examples in docstrings only
	@OMP_NUM_THREADS=1 $(BIN)/pytest ftkit

recipes: $(READY) ## check every recipe in recipes/
	@$(BIN)/ftkit check --no-files $(RECIPES)

docs: $(READY) ## write docs/recipe.md anew from the code
	@$(BIN)/python scripts/make_reference.py

bench-sft: peers ## compare speed and memory of sft with TRL's trainer (installs TRL; minutes)
	@$(BIN)/python scripts/bench_sft.py

bench-dpo: peers ## compare speed and memory of dpo with TRL's trainer (installs TRL; minutes)
	@$(BIN)/python scripts/bench_dpo.py

bench-dft: $(READY) ## compare a dft step with padded rows through full logits (minutes)
	@$(BIN)/python scripts/bench_dft.py

bench-negatives: $(READY) ## compare the sampling of negatives with transformers' generate (minutes)
	@$(BIN)/python scripts/bench_negatives.py

bench-rl: peers ## compare speed and memory of grpo with TRL's trainer, and disco with grpo (installs TRL; ten minutes and more)
	@$(BIN)/python scripts/bench_rl.py
	@$(BIN)/python scripts/bench_rl.py --prompt 256

bench-scale: $(READY) ## train on one and on two processes: tokens a second, and where a step goes (minutes)
	@$(BIN)/python -m scripts.bench_scale

bench-plan: $(READY) ## compare what ftkit plan says with the memory that runs take (minutes)
	@$(BIN)/python scripts/bench_plan.py

peers: $(READY)
	@$(BIN)/python -c 'import trl' 2>/dev/null || \
	  $(BIN)/pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[bench]'

reproduce-dft: tiny ## sft against dft and dft2 from the same start, five seeds (half an hour)
	@$(BIN)/python scripts/reproduce/dft.py

reproduce-rlvr: tiny ## every method that learns from a verifier, same starts and budget, five seeds (hours)
	@$(BIN)/python scripts/reproduce/rlvr.py

decimals: $(READY) ## the example of 9.11 and 9.9: log-probabilities under sft and dft, with the figure (minutes)
	@$(BIN)/python scripts/reproduce/decimals.py

clean: ## remove runs/tiny and what the tools cache
	@rm -rf $(TINY) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find ftkit scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
