# Everything a newcomer or the gate needs. `make help` explains every target.
SHELL := /bin/sh
GO    ?= go
BIN   := bin
SEEDS ?= 1000
FROM  ?= 1
# The race detector needs a C compiler; without one the tests run without it and say so.
RACE  := $(shell command -v $${CC:-gcc} >/dev/null 2>&1 && echo -race)

.PHONY: help build run test test-cluster unit e2e sim check lint gen gen-check fuzz bench bench-cluster cover clean servers servers-stop servers-status

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/hongyan
	$(GO) build -o $(BIN)/hongyan ./cmd/hongyan

run: build ## builds and starts hongyan dev: every tier in one process, data in ./data
	./$(BIN)/hongyan dev --data data

test: unit sim e2e ## every test: unit, the simulated cluster, end to end over real processes

unit: ## package tests, with the race detector where a C compiler is at hand
	@[ -n "$(RACE)" ] || echo "no C compiler: running without the race detector"
	$(GO) test $(RACE) $$($(GO) list ./... | grep -v /tests/)
	$(GO) test ./tests/arch/... ./tests/servers/...

sim: ## the simulated cluster: SEEDS=1000 FROM=1; a failing seed prints how to run it again
	HONGYAN_SIM_SEEDS=$(SEEDS) HONGYAN_SIM_FROM=$(FROM) $(GO) test ./tests/sim/... -timeout 0

e2e: build ## end to end: real sockets, real processes, kill -9, the examples of docs, a real browser where there is one
	$(GO) test -count=1 -timeout 20m ./tests/e2e/... ./tests/chaos/... ./tests/docs/... ./tests/browser/...

test-cluster: build ## what needs real servers: starts those of make servers, runs suites, cluster and faults over them
	./tests/cluster.sh

check: lint gen-check ## what the gate checks beside the tests

lint: ## gofmt, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	./tools/staticcheck.sh ./...

gen: ## regenerates everything generated: idl, the error table, the configuration page
	./idl/gen.sh
	$(GO) run ./internal/config/reference

gen-check: gen ## generated code is what the sources say
	@git diff --exit-code --stat -- idl docs examples || { echo "generated files differ: run make gen and commit"; exit 1; }

fuzz: ## every fuzz target for FUZZTIME=10s
	./tests/fuzz.sh $(or $(FUZZTIME),10s)

bench: build ## the figures of docs/performance.md on this machine
	./tests/bench.sh

bench-cluster: build ## the figures of the cluster on real servers
	./tests/bench-cluster.sh

cover: ## coverage of the unit tests
	$(GO) test -coverprofile=$(BIN)/cover.out ./... && $(GO) tool cover -func=$(BIN)/cover.out | tail -1

servers: ## MySQL x 2 shards, TiDB, RocketMQ, Redis, etcd on loopback, as deploy/servers/README.md says; SERVERS="mysql redis" for some
	./deploy/servers/servers.sh up $(SERVERS)

servers-stop: ## ends what make servers started
	./deploy/servers/servers.sh down $(SERVERS)

servers-status: ## what runs where
	./deploy/servers/servers.sh status $(SERVERS)

clean: ## removes bin and the data of make run
	rm -rf $(BIN) data
