# Every target hands one command to uv, with ARGS at its end; `make` lists them.

# uv from the PATH when it works in this folder (a pyenv shim can be there and fail),
# or else one in .uv/ that pip installs when it is first needed.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
SETUP := $(filter .uv/bin/uv,$(UV))

# --frozen: exactly what uv.lock names, on every machine and whatever index it uses.
# --locked would also compare the file with that index, and stop where they differ.
RUN := $(UV) run --frozen

# Settings in .env are for the server, the keys in it are not: callers send theirs.
# dotenv rather than `uv run --env-file`, which stops reading at the first value with a
# space in it and prints that value, and rather than the shell, which would run it.
DOTENV := $(if $(wildcard .env),dotenv --file .env run --no-override)
NO_KEYS := env -u OPENAI_API_KEY -u GEMINI_API_KEY -u ANTHROPIC_API_KEY

.PHONY: help demo server client test lint bench clients soak deploy

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile
	@echo 'Options go into ARGS: make client ARGS="--model openai/gpt-4o"'

demo: $(SETUP) ## see it work: server, client and a mock upstream; no key, no internet
	$(RUN) python -m tools.demo $(ARGS)

server: $(SETUP) ## run the server, on port 8321 or LLAMA_STACK_PORT
	$(RUN) $(DOTENV) $(NO_KEYS) python -m lls_openai run.yaml $(ARGS)

client: $(SETUP) ## ask every model whose key is in .env or the environment
	$(RUN) python main.py $(ARGS)

# Compiled beforehand: a dozen processes would each compile what is new, at a time.
test: $(SETUP) ## run the tests; no key, no internet
	UV_COMPILE_BYTECODE=1 $(RUN) pytest $(ARGS)

lint: $(SETUP) ## check style, format and types
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

bench: $(SETUP) ## measure against a bare relay and the stock provider
	$(RUN) python -m tools.bench $(ARGS)

clients: $(SETUP) ## drive it with OpenAI clients that others wrote
	$(RUN) python -m tools.clients $(ARGS)

soak: $(SETUP) ## load, slow readers, leavers, dead vendors: what the server keeps
	$(RUN) python -m tools.soak $(ARGS)

deploy: $(SETUP) ## check deploy/ with nginx, systemd and bubblewrap
	$(RUN) --group deploy pytest tests/deploy $(ARGS)

.uv/bin/uv:
	@echo "No working uv here: installing one into .uv/, this once."
	@for python in python3 python3.14 python3.13 python3.12; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; \
		then \
			$$python -m venv --clear .uv \
				&& .uv/bin/pip install --disable-pip-version-check uv; \
			exit; \
		fi; \
	done; \
	echo "This needs Python 3.12 or newer, and python3 is not one." >&2; \
	echo "Install it, or uv, which brings its own: https://docs.astral.sh/uv/" >&2; \
	exit 1
