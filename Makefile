# Each target runs one uv command and appends ARGS to it. `make` lists the targets.

# Use uv from the PATH if it works in this directory (a pyenv shim may exist and fail),
# or else install one into .uv/ with pip.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
SETUP := $(filter .uv/bin/uv,$(UV))
# The same version as in deploy/Containerfile and CI.
UV_VERSION := uv>=0.13,<0.14

# --frozen installs exactly the versions in uv.lock, whichever package index is in use.
# --locked would also compare the file with that index, and fail if they differ.
RUN := $(UV) run --frozen

# OGX requires other versions of Llama Stack's dependencies, so it is installed in a
# separate environment, and this project there without its dependencies.
OGX := UV_PROJECT_ENVIRONMENT=.venv-ogx $(RUN) --only-group ogx --only-group dev
INSTALL_ON_OGX = @$(OGX) $(UV) pip install --quiet --no-deps --editable .

# The settings in .env are for the server. `uv run --env-file` would stop at the first
# value with a space and print it, and a shell would execute the values.
DOTENV := $(if $(wildcard .env),dotenv --file .env run --no-override)
# The keys in .env are for the client: remove every *_API_KEY from the server's
# environment.
NO_KEYS := sh -c 'exec env $$(awk "BEGIN { for (name in ENVIRON) \
	if (name ~ /^[A-Za-z0-9_]*_API_KEY$$/) print \"-u\", name }") "$$@"' sh

.PHONY: help demo server client test lint bench clients soak deploy ogx test-ogx

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile
	@echo 'Pass options in ARGS: make client ARGS="--model openai/gpt-4o"'

demo: $(SETUP) ## run server and client against a mock upstream; no key, no internet
	$(RUN) python -m tools.demo $(ARGS)

server: $(SETUP) ## run the server on port 8321 or LLAMA_STACK_PORT
	$(RUN) $(DOTENV) $(NO_KEYS) python -m lls_openai run.yaml $(ARGS)

client: $(SETUP) ## call every model whose key is in .env or the environment
	$(RUN) python main.py $(ARGS)

# Byte-compile first; otherwise each server process compiles the same modules.
test: $(SETUP) ## run the tests; no key, no internet
	UV_COMPILE_BYTECODE=1 $(RUN) pytest $(ARGS)

lint: $(SETUP) ## check style, format and types
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

bench: $(SETUP) ## compare the speed with a bare relay and others (needs wrk)
	$(RUN) python -m tools.bench $(ARGS)

clients: $(SETUP) ## test third-party clients; installs each from its registry
	$(RUN) python -m tools.clients $(ARGS)

soak: $(SETUP) ## load it for minutes, attack it, and measure memory and leaks
	$(RUN) python -m tools.soak $(ARGS)

deploy: $(SETUP) ## test deploy/ with nginx, systemd and bubblewrap
	$(RUN) --group deploy pytest tests/deploy $(ARGS)

ogx: $(SETUP) ## run the server on OGX instead of Llama Stack, on OGX_PORT
	$(INSTALL_ON_OGX)
	$(OGX) $(DOTENV) $(NO_KEYS) python -m lls_openai run.yaml $(ARGS)

test-ogx: $(SETUP) ## run the tests on OGX
	$(INSTALL_ON_OGX)
	UV_COMPILE_BYTECODE=1 $(OGX) pytest $(ARGS)

.uv/bin/uv:
	@echo "No working uv found: installing one into .uv/ (only this once)."
	@for python in python3 python3.14 python3.13 python3.12; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; \
		then \
			$$python -m venv --clear .uv \
				&& .uv/bin/pip install --disable-pip-version-check "$(UV_VERSION)"; \
			exit; \
		fi; \
	done; \
	echo "Python 3.12 or newer is required, and python3 is older." >&2; \
	echo "Install it, or install uv: https://docs.astral.sh/uv/" >&2; \
	exit 1
