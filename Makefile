# make demo: from nothing to a table of held-out scores.  make test: from nothing to a tested checkout.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := $(CURDIR)/.venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# deepspeed and ninja are programs: they are looked for on the path, also by processes that DeepSpeed starts.
export PATH := $(VENV)/bin:$(PATH)

# Only where no GPU answers: elsewhere DeepSpeed finds the GPU itself.
ifeq ($(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU'),0)
export DS_ACCELERATOR ?= cpu
endif

DEMO_DATA := runs/demo-data
DEMO_RUN := runs/demo

# The tests of slurm/, inside a private machine with an emulated cluster; where that cannot be, it says why.
ON_CLUSTER = @if why=$$(python -m tests.slurm.cluster check); then python -m tests.slurm.cluster run

.PHONY: help env demo downstream test test-random test-long test-slurm test-slurm-long lint clean

help:
	@echo "make env        the environment .venv"
	@echo "make demo       synthetic shards, tokenizer, pretraining on two processes, held-out scores, an export"
	@echo "make downstream after it: captions, questions and retrieval, from the demo's weights and from random ones"
	@echo "make test       lint and the tests, without the long ones"
	@echo "make test-random  the same tests in another order"
	@echo "make test-long  every test"
	@echo "make test-slurm       the tests of slurm/ on a Slurm with emulated nodes (as root, on Debian)"
	@echo "make test-slurm-long  the long ones too"
	@echo "make lint       ruff check and format"
	@echo "make clean      remove the environment, caches and build folders; runs stay"

env: $(STAMP)

# torch comes first: DeepSpeed's set-up asks it what to build, and DS_BUILD_OPS=0 leaves all of that for the first use.
$(STAMP): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 env" >&2; exit 2; }
	@echo "making the environment $(VENV): some minutes the first time"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) setuptools wheel
	$(PIP) torch
	DS_BUILD_OPS=0 $(PIP) --no-build-isolation --editable '.[test]'
	@touch $@

demo: env
	rm -rf $(DEMO_RUN)
	mmdata synth $(DEMO_DATA) --num-train 60000 --num-heldout 512 --seed 0 --image-size 64 --overwrite
	mmdata tokenizer $(DEMO_DATA)/train --out $(DEMO_DATA)/tokenizer.model --vocab-size 512 --overwrite
	deepspeed --quiet --num_accelerators 2 mmtrain/pretrain.py --config configs/pretrain/tiny.yaml run_dir=$(DEMO_RUN)
	mmtrain export $(DEMO_RUN)
	mmtrain evaluate $(DEMO_RUN) --captions

# Each task from the demo's weights, and for as many steps from random ones: six runs of one process, two at a time.
DOWNSTREAM := runs/downstream
TASKS := caption vqa retrieval
FROM_DEMO := $(TASKS:%=$(DOWNSTREAM)/pretrained/%)
FROM_RANDOM := $(TASKS:%=$(DOWNSTREAM)/random/%)
FINETUNE = mmtrain finetune --config configs/finetune/$(@F).yaml model.init_from=$(DEMO_RUN) run_dir=$@ train.micro_batch_size=64
HEADLINES := vqa_accuracy cider_d caption_things_right caption_all_right "*recall_at_1"

downstream: env
	@test -e $(DEMO_RUN)/checkpoints/latest || { echo "$(DEMO_RUN) holds no checkpoint; first: make demo" >&2; exit 2; }
	rm -rf $(DOWNSTREAM)
	@echo "six runs, two at a time; each is shown once it has ended, until then: tail -f $(DOWNSTREAM)/*/*/log.jsonl"
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target \
		$(foreach task,$(TASKS),$(DOWNSTREAM)/pretrained/$(task) $(DOWNSTREAM)/random/$(task))
	mmtrain compare $(DOWNSTREAM)/pretrained $(DOWNSTREAM)/random --scores $(HEADLINES) --json $(DOWNSTREAM)/table.jsonl

# Phony: what is half done is not taken for done.
.PHONY: $(FROM_DEMO) $(FROM_RANDOM)
$(FROM_DEMO) $(FROM_RANDOM): export OMP_NUM_THREADS := 1
$(FROM_DEMO):
	$(FINETUNE)
$(FROM_RANDOM):
	$(FINETUNE) --from-random

# What spawns ranks of its own gets the machine to itself; the rest shares its cores.
ALONE := tests/distributed tests/doors tests/gpu

# In the order of the files; `make test-random` runs the same tests in an order of chance and says its seed.
ORDER := -p no:randomly

test: env
	ruff check .
	pytest $(ORDER) -m "not long" --numprocesses 2 tests/house tests/hostile tests/numerics tests/unit
	pytest $(ORDER) -m "not long" $(ALONE)

test-random: ORDER :=
test-random: test

test-long: env
	ruff check .
	pytest $(ORDER)

test-slurm: env
	$(ON_CLUSTER) pytest $(ORDER) -m "not long" tests/slurm; else echo "make test-slurm is left out: $$why"; fi

test-slurm-long: env
	$(ON_CLUSTER) pytest $(ORDER) tests/slurm; else echo "make test-slurm-long is left out: $$why"; fi

lint: env
	ruff check .
	ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
