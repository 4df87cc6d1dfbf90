# Two commands do everything: `make quickstart` and `make test`. `make help` lists the others.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# onnxruntime sends telemetry unless told not to; nothing here phones home.
export ORT_DISABLE_TELEMETRY := 1
# A file's tests stay together: some share what takes long to make. The cluster is one, so its tests run one by one.
# Files in their order, not those of many tests first: the longest have few, and one process would end with them alone.
UNIT := .venv/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/unit tests/simulation
.PHONY: help quickstart test beside-unit beside-apiserver beside-e2e test-servers test-vllm test-faults test-handover test-kueue test-node test-registry test-dashboard bench-scale soak check unit images cluster-up cluster-down purge room venv lock charts fingerprints

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: ## a real cluster, real documents, a real model, to Ready, with a curl that works
	@$(PYTHON) hack/quickstart

# These take two minutes: they have a target of their own, test-servers.
EACH := tests/e2e/test_servers.py::test_each_server_reaches_ready_and_answers_as_the_contract_says
OLDER := nim-2.0 nim-2.2
# Three suites side by side: those with a cluster wait for pods and leases most of the time, those without one compute.
# Whichever fails, the others go on, and each tells all it has to say once it has ended.
test: room venv ## the main suites: unit, simulation, API server and end-to-end tests
	@$(PYTHON) hack/cluster up
	@$(PYTHON) hack/images build
	@$(PYTHON) hack/images load
	@echo "unit and simulation, API server, end-to-end: each is shown when it has ended"
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target beside-unit beside-apiserver beside-e2e

# What computes all the time stands back for what answers others: probes, leases, clients.
beside-unit:
	@nice -n 10 $(UNIT)

beside-apiserver:
	@.venv/bin/pytest tests/apiserver tests/faults/test_oracles.py tests/faults/test_selection.py

beside-e2e:
	@.venv/bin/pytest tests/e2e --ignore tests/e2e/test_handover.py $(OLDER:%=--deselect "$(EACH)[%]")

test-servers: room venv ## strict stand-ins of every generation of NIM and of vLLM on the cluster; make test has the oldest and the newest
	@$(PYTHON) hack/cluster up
	@$(PYTHON) hack/images build
	@$(PYTHON) hack/images load
	@.venv/bin/pytest tests/e2e/test_servers.py

test-vllm: venv ## the real vLLM, built for CPUs, on a checkpoint of each family, in the operator's container; as root, 6 GB
	@hack/vllm.sh >/dev/null
	@.venv/bin/pytest tests/real_vllm

test-faults: venv ## every scenario of the fault proxy, which takes long; FAULTS=words takes those with the words in their names
	@.venv/bin/pytest --capture=no tests/faults

test-handover: room venv ## an index that changes hands four times while a client asks it; trains four models
	@$(PYTHON) hack/cluster up
	@.venv/bin/pytest tests/e2e/test_handover.py

test-kueue: venv ## a resource in a queue of the real Kueue, which Go builds, beside an API server; as root
	@.venv/bin/pytest tests/kueue

test-node: room venv ## a real node that loses its kubelet, its API server, its operator, disk and memory, as root; half an hour
	@$(PYTHON) hack/cluster up
	@$(PYTHON) hack/images build
	@$(PYTHON) hack/images load
	@.venv/bin/pytest --capture=no tests/node

test-registry: venv ## push an image to a registry on this machine and compare what comes back
	@.venv/bin/pytest tests/registry

test-dashboard: ## check the dashboard against the schema of Grafana's own SDK, which Go fetches
	@cd hack/dashboard && go run . ../../charts/embedding-operator/files/dashboard.json

bench-scale: venv ## ten thousand resources held, beside JobSet and Argo Workflows; 4 GB of disk. OPTIONS="--quick": under 3 minutes
	@$(PYTHON) hack/localkube build
	@.venv/bin/python -m bench.scale $(OPTIONS)

soak: venv ## two hours of resources that come, change and go, with a fault every ten seconds; OPTIONS="--minutes 10"
	@$(PYTHON) hack/localkube build
	@.venv/bin/python -m bench.scale.soak $(OPTIONS)

unit: venv ## the tests that need no cluster
	@$(UNIT)

check: venv ## lint, types, import layers; what is generated, and what identifies work, against what is written
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@MYPYPATH=$$(.venv/bin/python hack/tensorrt_stubs.py) .venv/bin/mypy
	@for tool in localkube images cluster quickstart; do (cd hack/$$tool && MYPYPATH=../../operator:../../stage_images \
	    ../../.venv/bin/mypy --strict --no-error-summary --config-file= *.py) || exit 1; done
	@MYPYPATH=operator:stage_images:crds .venv/bin/mypy --no-error-summary --explicit-package-bases crds/*.py
	@PYTHONPATH=operator:stage_images .venv/bin/lint-imports --no-logo
	@.venv/bin/yamllint --strict .
	@charts/sync.sh --check
	@.venv/bin/pytest --quiet tests/unit/operator/test_crd.py tests/unit/operator/test_released_fingerprints.py

images: ## build the images and load them into the cluster; REGISTRY=... pushes them for the chart instead, VERSION=... chooses their tag
	@if [ -n "$$REGISTRY" ]; then exec $(PYTHON) hack/images publish; fi; \
	    $(PYTHON) hack/images build && $(PYTHON) hack/images load

cluster-up: ## start the cluster, or restart what is dead
	@$(PYTHON) hack/cluster up

cluster-down: ## stop the cluster and leave nothing running
	@$(PYTHON) hack/cluster down

purge: ## cluster-down, and remove the images, disks and caches of this project too
	@$(PYTHON) hack/cluster down --purge
	@$(PYTHON) hack/images purge
	@rm -rf -- "$${XDG_CACHE_HOME:-$$HOME/.cache}/embedding-operator"
	@if [ -L .venv ]; then rm .venv; fi
	@echo "Go's own caches are left, about 4 GB: go clean -cache -modcache empties them"

# One look at the disks before minutes of work.
room:
	@$(PYTHON) hack/cluster room venv

charts: venv ## generate the CRD and the docs from the table of settings, and copy the CRD into the chart
	@charts/sync.sh

fingerprints: venv ## write down anew what this release identifies work by (tests/unit/operator/data)
	@PYTHONPATH=operator:stage_images:tests .venv/bin/python -m unit.operator.released

venv: ## the development environment, cached outside the repository
	@hack/venv.sh

lock: venv ## pin the development environment anew
	@.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	    --output-file requirements/dev.lock --quiet
	@.venv/bin/uv pip compile requirements/vllm.in --overrides requirements/vllm.overrides --python-version 3.11 \
	    --generate-hashes --upgrade --output-file requirements/vllm.lock --quiet
