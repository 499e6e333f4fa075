SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
CHECKOV := .venv-checkov
PY := $(BIN)/python
USERS ?= 50000
CHANGES ?= 1
COPIES ?= 1
GATEWAY ?= http://127.0.0.1:8080
JOBS ?= 3
PRODUCTION := services gateway servicekit mainapp
SOURCES := servicekit services gateway mainapp devstack simulation bench tests

.DEFAULT_GOAL := help
.PHONY: help setup run restore-drill demo trace trace-view reconcile test check fmt fmt-check lint types imports proto proto-check \
	proto-release docs docs-check monitoring monitoring-check aws aws-check k8s-check openapi openapi-check release grants grants-check ts ts-check desk \
	desk-test image image-push image-load images-test deploy debug-pod stop-capture start-capture sbom audit unit contract integration migrations-check fault e2e mysql-check redis-cluster-check drift browser \
	vendor simulation simulate bench lock clean metrics vocabulary-check

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make the Python environment and see that the Debian packages are there

$(VENV)/.ready: requirements.lock pyproject.toml devstack/setup.sh
	@sh devstack/setup.sh

run: setup ## Start everything on this machine (USERS=50000, CHANGES=1 a second, COPIES=2 of each); Ctrl-C stops it
	@$(PY) -m devstack.run --users $(USERS) --changes $(CHANGES) --copies $(COPIES)

demo: setup ## With `make run` going: follow one signature from MySQL to the desk, then make a call
	@$(PY) -m devstack.demo

trace: WHAT = change
trace: setup ## With `make run` going: the spans of one change, from its commit to the event (WHAT=claim)
	@$(PY) -m devstack.trace $(WHAT)

trace-view: WHAT = change
trace-view: setup ## The same as a waterfall in the browser
	@$(PY) -m devstack.trace $(WHAT) --view

reconcile: KIND = full
reconcile: setup ## With `make run` going: compare everybody with MySQL (KIND=changed, warming, housekeeping)
	@$(PY) -m devstack.reconcile --kind $(KIND)

restore-drill: USERS = 5000
restore-drill: setup ## Lose PostgreSQL and Redis under load, restore, and see what is missing (USERS=5000, COPIES=2)
	@$(PY) -m devstack.restore_drill --users $(USERS) --copies $(COPIES)

test: setup check contract integration migrations-check fault e2e simulation ## All checks and all tests
	@echo "All checks and tests have passed."

check: setup fmt-check lint types imports vocabulary-check proto-check docs-check monitoring-check openapi-check grants-check aws-check k8s-check unit ## What needs no servers

fmt: setup ## Format the code
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

fmt-check: setup
	@$(BIN)/ruff format -q --check .

lint: setup ## Ruff
	@$(BIN)/ruff check -q .

types: setup ## mypy, strict
	@$(BIN)/mypy $(SOURCES)

imports: setup ## Who may import whom
	@$(BIN)/lint-imports

proto: setup ## Generate gen/ from protos/
	@rm -rf gen/dialler
	@$(PY) -m grpc_tools.protoc -Iprotos \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=gen --mypy_out=quiet:gen --grpc_python_out=gen --mypy_grpc_out=quiet:gen \
		$$(find protos -name '*.proto' | sort)

proto-check: setup ## Lint the contracts, compare them with those released, see that gen/ is current
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against protos/released.binpb
	@$(PY) -m devstack.protos_current

proto-release: setup ## Make the present contracts those that later ones may not break (`make release` does)
	@$(BIN)/buf build -o protos/released.binpb

docs: setup ## Write docs/configuration.md from the settings classes
	@$(PY) -m devstack.configuration_page

docs-check: setup
	@$(PY) -m devstack.configuration_page --check

monitoring: setup ## Write deploy/monitoring (rules, dashboards) from devstack/alerting.py and dashboards.py
	@$(PY) -m devstack.monitoring

monitoring-check: setup ## deploy/monitoring: current, read and tested by promtool
	@$(PY) -m devstack.packages --monitoring
	@$(PY) -m devstack.monitoring --check

aws: setup ## Write deploy/aws/task.yaml from the main app's description
	@$(PY) -m devstack.dms_task

aws-check: setup $(CHECKOV)/.ready ## deploy/aws: current, linted, scanned against policies
	@$(PY) -m devstack.dms_task --check
	@$(BIN)/cfn-lint --regions eu-west-2 -- deploy/aws/*.yaml
	@$(CHECKOV)/bin/checkov --directory deploy/aws --framework cloudformation --skip-download --quiet --compact

grants: setup ## Write deploy/sql, what each database account may do, from the main app's description
	@$(PY) -m devstack.sql_grants

grants-check: setup
	@$(PY) -m devstack.sql_grants --check

k8s-check: setup $(CHECKOV)/.ready ## deploy/k8s and the Dockerfile: built, schemas, policies, held against the code
	@$(BIN)/hadolint deploy/Dockerfile deploy/stores.Dockerfile
	@$(PY) -m devstack.manifest_check

deploy: setup ## An overlay into a cluster, back if it fails (ENV=local|staging|production, CONTEXT=kubectl's)
	@$(PY) -m devstack.cluster deploy $(or $(ENV),$(error say where: make deploy ENV=staging)) $(if $(CONTEXT),--context $(CONTEXT))

debug-pod: setup ## Print a pod that reaches a service's stores, for kubectl apply -f - (ENV=production, S=queue)
	@$(PY) -m devstack.debug_pod $(or $(ENV),$(error say where: make $@ ENV=production S=queue)) $(or $(S),queue)

stop-capture: setup ## Stop change capture in a cluster, so that KEDA does not undo it (ENV=production, CONTEXT=kubectl's)
	@$(PY) -m devstack.cluster $@ $(or $(ENV),$(error say where: make $@ ENV=production)) $(if $(CONTEXT),--context $(CONTEXT))

start-capture: setup ## Start it again (ENV=production)
	@$(PY) -m devstack.cluster $@ $(or $(ENV),$(error say where: make $@ ENV=production)) $(if $(CONTEXT),--context $(CONTEXT))

image: setup ## One service's image, without a daemon, as root (S=queue or S=all; BASE=NAME@sha256:...)
	@$(PY) -m devstack.images $(or $(S),$(error say which: make image S=queue)) $(if $(BASE),--base $(BASE))

image-push: setup ## The images into a registry, their digests into an overlay (REGISTRY=HOST/PATH, ENV=staging, SIGN_BY=key)
	@$(PY) -m devstack.image_push $(or $(REGISTRY),$(error say where: make image-push REGISTRY=registry.example/team)) \
		$(if $(ENV),--overlay $(ENV)) $(if $(SIGN_BY),--sign-by $(SIGN_BY)) $(if $(INSECURE),--insecure)

image-load: setup ## All images and the stores' into a cluster on this machine, for ENV=local (INTO=kind or minikube)
	@$(PY) -m devstack.image_load $(or $(INTO),$(error say where: make image-load INTO=kind)) $(if $(BASE),--base $(BASE))

images-test: setup ## All images, started from the rendered manifests, do the suite's work (as root, ten minutes)
	@$(PY) -m devstack.packages --registry
	@$(PY) -m devstack.images all
	@unshare --net sh -c 'ip link set lo up && exec $(BIN)/pytest -q -s tests/images'

sbom: setup ## What each image is made of, as CycloneDX, into dist/
	@$(PY) -m devstack.supply_chain sbom

audit: setup ## Known vulnerabilities of what is pinned; fails when nothing could be looked up
	@$(PY) -m devstack.supply_chain audit

# An environment of its own: checkov's pins would set boto3 back by years.
$(CHECKOV)/.ready: requirements-checkov.lock | setup
	@echo "Making checkov's environment in $(CHECKOV) (half a minute the first time) ..."
	@[ -x $(CHECKOV)/bin/python ] || $(PY) -m venv $(CHECKOV)
	@$(CHECKOV)/bin/pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

openapi: setup ## Write clients/typescript/openapi.json from the gateway
	@$(PY) -m devstack.openapi_file

openapi-check: setup ## The API's description: current, and no client of the last release breaks
	@$(PY) -m devstack.openapi_file --check
	@$(PY) -m devstack.api_compatibility

release: setup ## Make a release of the tree: versions, changelog, commit, tag (VERSION=0.2.0)
	@$(PY) -m devstack.release $(or $(VERSION),$(error say which: make release VERSION=0.2.0))

# One node_modules for the client and the desk: two copies of React do not work together.
node_modules/.ready: package-lock.json | setup
	@sh devstack/node.sh
	@npm ci --loglevel=error
	@touch $@

ts: openapi node_modules/.ready ## Write the TypeScript client's types from the gateway's description
	@npm run -s generate -w @dialler/client

ts-check: openapi-check node_modules/.ready ## The TypeScript client: current, strict, tested against the running gateway
	@npm run -s generate:check -w @dialler/client
	@npm run -s types -w @dialler/client
	@DIALLER_PYTHON=$(CURDIR)/$(PY) npm run -s test -w @dialler/client

desk: setup node_modules/.ready ## With `make run` going: the agents' desk at http://localhost:3000
	@npm run -s build -w @dialler/client
	@DIALLER_URL=$(GATEWAY) NEXT_TELEMETRY_DISABLED=1 npm run -s dev -w nextjs-desk

desk-test: setup node_modules/.ready ## The desk, built and driven in a real Chromium against everything
	@$(PY) -m devstack.packages --browser
	@npm run -s build -w @dialler/client
	@NEXT_TELEMETRY_DISABLED=1 npm run -s build -w nextjs-desk
	@DIALLER_PYTHON=$(CURDIR)/$(PY) npm run -s test -w nextjs-desk

unit: setup $(CHECKOV)/.ready ## Tests that need no servers
	@$(BIN)/pytest -q -n $(JOBS) tests/unit

contract: setup ## Our SQS endpoint and moto answer alike
	@$(BIN)/pytest -q -n $(JOBS) tests/contract

integration: setup ## Each service against real servers
	@$(BIN)/pytest -q -n $(JOBS) tests/integration

migrations-check: setup ## Migrations from nothing; tables as declared
	@$(BIN)/pytest -q tests/migrations

fault: WHICH = tests/fault
fault: setup ## Tests that break things on purpose (COPIES=2 of each service; WHICH=tests/fault/pipeline/test_crashes.py)
	@DIALLER_TEST_COPIES=$(COPIES) $(BIN)/pytest -q -n $(JOBS) $(WHICH)

e2e: setup ## The whole suite, from a row in MySQL to an event in the desk
	@$(BIN)/pytest -q tests/e2e

mysql-check: setup ## The readings of the main app on Oracle's MySQL (taken from Debian's unstable release, as root)
	@DIALLER_TEST_MYSQL=1 $(BIN)/pytest -q -n $(JOBS) tests/integration/user_context tests/integration/binlog_relay

redis-cluster-check: setup ## What uses Redis, on a cluster of three nodes (`make integration` has a part of it)
	@DIALLER_TEST_REDIS=cluster $(BIN)/pytest -q -n $(JOBS) tests/integration/gateway tests/integration/queue \
		tests/integration/user_context tests/integration/servicekit/test_event_stream.py

drift: setup ## Silent damage of every kind among 50,000 people: all found, nobody falsely accused
	@$(BIN)/pytest -q tests/drift

browser: setup tests/browser/node_modules/.ready ## The wallboard in a real Chromium (WALLBOARD_PICTURES=folder keeps pictures)
	@$(BIN)/pytest -q tests/browser

tests/browser/node_modules/.ready: tests/browser/package-lock.json | setup
	@$(PY) -m devstack.packages --browser
	@cd tests/browser && npm ci --silent
	@touch $@

vendor: setup ## Fetch the wallboard's chart library as pinned in devstack/vendor.py
	@$(PY) -m devstack.vendor

simulation: COPIES = 2
simulation: setup ## A short simulated day, beside two copies of each service, and with rules broken on purpose
	@DIALLER_TEST_COPIES=$(COPIES) $(BIN)/pytest -q -n $(JOBS) tests/simulation

simulate: PEOPLE = 50000
simulate: AGENTS = 100
simulate: CHANGES = 100000
simulate: DAYS = 5
simulate: SEED = 1
simulate: setup ## A working week of 100 agents on 50,000 people, checked (SEED=1, COPIES=2, FIRST_DAY=2026-06-08)
	@$(PY) -m simulation --people $(PEOPLE) --agents $(AGENTS) --changes $(CHANGES) \
		--days $(DAYS) --seed $(SEED) --copies $(COPIES) $(if $(FIRST_DAY),--first-day $(FIRST_DAY))

bench: setup ## Speed beside the bare engines'; ONLY=name for one; ONLY=rebuild PEOPLE=500000; ONLY=list_import NUMBERS=2000000
	@$(PY) -m bench $(if $(ONLY),--only $(ONLY)) $(if $(PEOPLE),--people $(PEOPLE))$(if $(NUMBERS), --numbers $(NUMBERS))

lock: ## Pin the dependencies anew (needs uv)
	@uv pip compile pyproject.toml --all-extras --group dev --group bench --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-header -q -o requirements.lock
	@for service in user_context queue cdc_ingest reconciler binlog_relay gateway; do \
		uv pip compile pyproject.toml --extra $$service --constraint requirements.lock --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-header --no-annotate -q -o deploy/locks/$$service.lock || exit 1; \
	done
	@uv pip compile pyproject.toml --group stores --constraint requirements.lock --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -q -o deploy/locks/stores.lock
	@echo checkov | uv pip compile - --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-header -q -o requirements-checkov.lock

metrics: setup ## How long, how scattered and how well named the production code is (house style, rule 11)
	@$(PY) -m devstack.code_metrics $(PRODUCTION)

vocabulary-check: setup ## No class name stands for two classes, and no word of devstack/vocabulary.yaml is back
	@$(PY) -m devstack.code_metrics --check

clean: setup ## Remove the local servers' data and the images (stop `make run` first)
	@$(PY) -m devstack.clean
