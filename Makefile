# Two commands matter: `make demo` and `make test`. Each installs what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Outside the checkout, so that a fresh clone starts warm.
export MRM_CACHE ?= $(HOME)/.cache/mrm
export CARGO_TARGET_DIR ?= $(MRM_CACHE)/target
BIN := $(CARGO_TARGET_DIR)/release
PYTHON := $(MRM_CACHE)/python/bin/python
UV := $(MRM_CACHE)/python/bin/uv
# PyTorch with all it needs, to check checkpoints with. In the environment above torch has no NVIDIA libraries, so that
# Python cannot import it; there, they would change what the trainer is linked to.
REFERENCE := $(MRM_CACHE)/reference
# Ray, and the schemas of Kubernetes. Only MRM_REQUIRE_CLUSTER=1 installs it.
CLUSTER := $(MRM_CACHE)/cluster
# The environment that the Python package is tested in.
PACKAGE := $(MRM_CACHE)/package
WHEELS ?= $(MRM_CACHE)/wheels
DEMO ?= demo-output

# Kernels of torch, MKL and oneDNN for any x86-64: golden numbers must hold there as with the kernels of this machine.
PLAIN_CPU := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41

# A recipe line that needs libtorch begins with this.
TORCH = export LIBTORCH="$$(trainer/libtorch.sh)";

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: ## install libtorch into the cache (found again on the next run)
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@trainer/libtorch.sh

build: setup ## build the three binaries
	@$(TORCH) cargo build --release --workspace --bins
	@echo "binaries: $(BIN)/ingest $(BIN)/dataset $(BIN)/trainer"

demo: build ## raw directory to trained, evaluated model on synthetic data
	@BIN=$(BIN) trainer/demo.sh $(DEMO)

$(MRM_CACHE)/python/.tests: tests/requirements.txt
	@command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.10 or newer" >&2; exit 1; }
	@[ -x $(PYTHON) ] || python3 -m venv $(MRM_CACHE)/python
	@[ -x $(UV) ] || $(PYTHON) -m pip install --quiet uv
	@$(UV) pip install --quiet --python $(PYTHON) -r tests/requirements.txt
	@touch $@

$(REFERENCE)/.tests: tests/requirements-torch.txt ingest/benches/peers/requirements.txt | $(MRM_CACHE)/python/.tests
	@[ -x $(REFERENCE)/bin/python ] || $(UV) venv --quiet --python $(PYTHON) $(REFERENCE)
	@$(UV) pip install --quiet --compile-bytecode --python $(REFERENCE)/bin/python \
		-r tests/requirements-torch.txt
	@touch $@

$(CLUSTER)/.tests: tests/requirements-cluster.txt | $(MRM_CACHE)/python/.tests
	@[ -x $(CLUSTER)/bin/python ] || $(UV) venv --quiet --python $(PYTHON) $(CLUSTER)
	@$(UV) pip install --quiet --python $(CLUSTER)/bin/python -r tests/requirements-cluster.txt
	@touch $@

# torch and what it depends on are those of the reference environment: the override leaves them out here.
$(PACKAGE)/.tests: dataset/python/tests/requirements.txt | $(REFERENCE)/.tests
	@[ -x $(PACKAGE)/bin/python ] || $(UV) venv --quiet --python $(PYTHON) $(PACKAGE)
	@$(UV) pip install --quiet --compile-bytecode --python $(PACKAGE)/bin/python -r $< \
		--overrides <(echo "torch; python_version < '3'")
	@cd $(PACKAGE)/lib/python3*/site-packages && \
		(cd $(REFERENCE)/lib/python3*/site-packages && pwd) >reference.pth
	@touch $@

CLUSTER_TESTS := $(if $(filter 1,$(MRM_REQUIRE_CLUSTER)),$(CLUSTER)/.tests)
export MRM_CLUSTER_PYTHON ?= $(CLUSTER)/bin/python

# cargo test runs unit tests in one process, which has one random generator of torch.
test: package $(CLUSTER_TESTS) ## run all tests
	@$(TORCH) export MRM_PYTHON=$(PYTHON) MRM_TORCH_PYTHON=$(PACKAGE)/bin/python; \
	if command -v cargo-nextest >/dev/null; then \
		cargo nextest run --release --workspace --no-fail-fast; \
		$(PLAIN_CPU) cargo nextest run --release --workspace --no-fail-fast -E 'test(golden)'; \
	else \
		cargo test --release --workspace --no-fail-fast --lib -- --test-threads=1; \
		cargo test --release --workspace --no-fail-fast --bins --test '*'; \
		cargo test --release --workspace --no-fail-fast --doc; \
		$(PLAIN_CPU) cargo test --release --workspace --no-fail-fast golden; \
	fi
	@$(MAKE) --no-print-directory test-python

# The program in the trainer's wheel, such as one with CUDA.
TRAINER ?= $(BIN)/trainer
# The oldest glibc that the wheel of mrm-cxr is for, such as 2_28: zig links it. Without: that of this machine.
MANYLINUX ?=
MATURIN := $(UV) tool run --quiet $(if $(MANYLINUX),--with ziglang) maturin@1.16.0
OLD_GLIBC := $(if $(MANYLINUX),--compatibility manylinux_$(MANYLINUX) -- -C linker=$(abspath dataset/python/link_with_zig.sh) \
	-C link-args='-target $(shell uname -m)-linux-gnu.$(subst _,.,$(MANYLINUX))')

wheel: build $(MRM_CACHE)/python/.tests ## build the wheels mrm-cxr and mrm-cxr-trainer, in WHEELS; MANYLINUX=2_28 for an older glibc
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/mrm_cxr*.whl
	@$(PYTHON) dataset/python/third_party.py dataset/python/Cargo.toml dataset/python/THIRD-PARTY-NOTICES.txt
	@$(PYTHON) dataset/python/third_party.py trainer/Cargo.toml trainer/python/THIRD-PARTY-NOTICES.txt
	@$(MATURIN) build --quiet --release --strip --locked --manifest-path dataset/python/Cargo.toml --out $(WHEELS) $(OLD_GLIBC)
	@MRM_TRAINER=$(abspath $(TRAINER)) $(UV) build --quiet --wheel --python $(PYTHON) --out-dir $(WHEELS) trainer/python
	@ls -s --block-size=MB $(WHEELS)/*.whl

# The wheels in an environment with all that uses them.
package: wheel $(PACKAGE)/.tests
	@$(UV) pip install --quiet --offline --no-deps --reinstall --python $(PACKAGE)/bin/python $(WHEELS)/mrm_cxr*.whl

test-python: package ## build the wheels, and test them in environments of their own
	@$(TORCH) cargo build --quiet --release --workspace --example batch_digests
	@$(PACKAGE)/bin/python -m mypy --cache-dir $(MRM_CACHE)/mypy --config-file dataset/python/pyproject.toml -p mrm
	@for example in dataset/python/examples/*.py; do \
		$(PACKAGE)/bin/python -m mypy --cache-dir $(MRM_CACHE)/mypy --config-file dataset/python/pyproject.toml $$example; \
	done
	@$(PACKAGE)/bin/python -m mypy.stubtest mrm._mrm
	@$(PACKAGE)/bin/python -m mypy --cache-dir $(MRM_CACHE)/mypy --strict trainer/python/mrm_trainer trainer/python/tests
	@export MRM_REQUIRE_PEERS=1 MRM_BIN=$(BIN) MRM_PYTHON=$(PYTHON) MRM_WHEELS=$(WHEELS) MRM_UV=$(UV); \
	for tests in dataset/python/tests trainer/python/tests; do $(PACKAGE)/bin/python -m pytest --quiet $$tests; done

# The packages that need no libtorch, and the programs that their tests run.
DATA := --release -p mrm-dataset -p mrm-ingest -p mrm-phantom -p mrm-test-helpers -p mrm-tests-data

test-data: $(MRM_CACHE)/python/.tests $(CLUSTER_TESTS) ## run the end-to-end tests of ingest and dataset; needs no libtorch
	@cargo build $(DATA) --bins --examples
	@export MRM_PYTHON=$(PYTHON); \
	if command -v cargo-nextest >/dev/null; then \
		cargo nextest run $(DATA) --test '*' --no-fail-fast; \
	else \
		cargo test $(DATA) --test '*' --no-fail-fast; \
	fi

# torch with all NVIDIA libraries, and the packages with the headers that NCCL's part of c10d needs beyond torch's own.
CUDA := $(MRM_CACHE)/cuda
CUDA_TRAINER := $(MRM_CACHE)/cuda-target/release/trainer

$(CUDA)/.torch: | $(MRM_CACHE)/python/.tests
	@[ -x $(CUDA)/bin/python ] || $(UV) venv --quiet --python $(PYTHON) $(CUDA)
	@$(UV) pip install --quiet --python $(CUDA)/bin/python torch==2.11.0 \
		nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
	@touch $@

cuda-check: setup $(CUDA)/.torch ## build with CUDA and NCCL, and start the trainer; needs no GPU
	@LIBTORCH=$$(echo $(CUDA)/lib/python3*/site-packages/torch) CARGO_TARGET_DIR=$(MRM_CACHE)/cuda-target \
		cargo build --release --workspace --bins
	@$(CUDA_TRAINER) --version
	@$(CUDA_TRAINER) --version | grep -q "CUDA: yes; NCCL: yes"
	@readelf --dynamic $(CUDA_TRAINER) | grep -q libtorch_cuda.so
	@if $(CUDA_TRAINER) --version | grep -q "GPUs found: 0"; then \
		message=$$($(CUDA_TRAINER) bench --device cuda:0 --preset mrm-vit-tiny --batch-size 2 --steps 1 2>&1 || true); \
		echo "$$message"; [ "$$message" = "error: no device cuda:0 here (0 CUDA devices found)" ]; \
	fi
	@echo "a trainer with CUDA and NCCL: $(CUDA_TRAINER)"

notebooks: package ## execute the notebooks in place, on the demo's output
	@[ -e $(DEMO)/runs ] || { echo "run make demo first" >&2; exit 1; }
	@MRM_DATASET=$(abspath $(DEMO))/data MRM_RUNS=$(abspath $(DEMO))/runs \
		$(PACKAGE)/bin/python tests/python/notebooks.py notebooks notebooks

lint: setup audit ## format check, clippy, licenses, and documentation without warnings
	@cargo fmt --all --check
	@$(TORCH) cargo clippy --release --workspace --all-targets -- -D warnings
	@$(TORCH) RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --workspace --no-deps

# cargo-deny from the path, else the one in the cache.
DENY := $(or $(shell command -v cargo-deny),$(MRM_CACHE)/cargo-deny/bin/cargo-deny)

$(MRM_CACHE)/cargo-deny/bin/cargo-deny:
	@CARGO_TARGET_DIR=$(MRM_CACHE)/cargo-deny/build cargo install --quiet cargo-deny --version 0.20.2 --locked \
		--no-default-features --root $(MRM_CACHE)/cargo-deny
	@rm -rf $(MRM_CACHE)/cargo-deny/build

audit: $(DENY) ## check licenses, sources and banned crates of all dependencies (deny.toml)
	@cargo fetch --quiet --locked --target x86_64-unknown-linux-gnu
	@$(DENY) --offline --locked --target x86_64-unknown-linux-gnu check licenses bans sources

BENCH ?= bench-output

bench: build ## rates of this machine: ingest, loader, training step
	@$(BIN)/ingest phantom mimic-cxr $(BENCH)/raw --studies 400 --size 1024
	@time $(BIN)/ingest mimic-cxr $(BENCH)/raw $(BENCH)/data --overwrite
	@for transform in none pretrain finetune; do $(BIN)/dataset bench $(BENCH)/data --transform $$transform --seconds 5; done
	@$(BIN)/trainer bench --preset mrm-vit-tiny --batch-size 32 --steps 20
	@$(BIN)/trainer bench --preset mrm-vit-b16 --batch-size 8 --steps 3 --warmup 1

# The Python programs that ours are compared with: a requirements.txt beside each benchmark.
PEERS := $(MRM_CACHE)/peers
PEER_REQUIREMENTS := $(wildcard */benches/peers/requirements.txt) dataset/python/benches/requirements.txt

$(PEERS)/.complete: $(PEER_REQUIREMENTS) | $(MRM_CACHE)/python/.tests
	@[ -x $(PEERS)/bin/python ] || $(UV) venv --quiet --python $(PYTHON) $(PEERS)
	@$(UV) pip install --quiet --compile-bytecode --python $(PEERS)/bin/python \
		$(addprefix -r ,$(PEER_REQUIREMENTS))
	@touch $@

bench-peers: wheel $(PEERS)/.complete ## ratios of this machine: ingest, loader and training step beside Python's
	@$(PEERS)/bin/python ingest/benches/peers/ingest.py --ingest $(BIN)/ingest --work $(BENCH)/peers/ingest
	@$(UV) pip install --quiet --offline --no-deps --reinstall --python $(PEERS)/bin/python $(WHEELS)/mrm_cxr-*.whl
	@$(PEERS)/bin/python dataset/python/benches/loader.py --ingest $(BIN)/ingest --dataset $(BIN)/dataset \
		--work $(BENCH)/peers/loader --loop --store
	@$(PEERS)/bin/python trainer/benches/peers/train.py --trainer $(BIN)/trainer --cpu-time

gpu-check-files: build ## what trainer/gpu_check needs beside the binaries: golden-tests
	@$(TORCH) cargo test --release --workspace --test golden --no-run --message-format=json \
		| sed -n 's/.*"executable":"\([^"]*\/golden-[^"]*\)".*/\1/p' | xargs -I{} cp {} $(BIN)/golden-tests
	@echo "python3 trainer/gpu_check --bin $(BIN) --python PYTHON_WITH_TORCH --out gpu-check"

HELP_FILES ?= help-files

help-files: build ## manual pages and shell completions of the three programs, in HELP_FILES=help-files
	@mkdir -p $(HELP_FILES)/completions
	@for program in ingest dataset trainer; do \
		$(BIN)/$$program man $(HELP_FILES)/man1; \
		for shell in bash zsh fish; do $(BIN)/$$program completions $$shell >$(HELP_FILES)/completions/$$program.$$shell; done; \
	done
	@echo "man -l $(HELP_FILES)/man1/dataset-split.1; source $(HELP_FILES)/completions/dataset.bash"

.PHONY: help setup build demo wheel package test test-python test-data cuda-check notebooks lint audit bench bench-peers gpu-check-files help-files
