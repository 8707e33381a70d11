# Ranvier. `make help` lists what there is to make.

# Where golang.org's own package puts Go; it counts only if no other is found.
export PATH := $(PATH):/usr/local/go/bin

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
PKG      ?= ./...
TIMEOUT  ?= 12m
FUZZTIME ?= 60s
BENCH    ?= .
SOAK     ?= 5m
VERSION  := $(or $(VERSION),$(shell git describe --tags --always --dirty 2>/dev/null),unknown)

export GO FUZZTIME

.DEFAULT_GOAL := build
.PHONY: build test race lint fuzz bench soak interop demo install setup clean help

build: ## build bin/ranvier, one static binary
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' \
		-o bin/ranvier ./cmd/ranvier
	@echo "build: bin/ranvier $(VERSION)"

test: setup ## set up, vet and run every test (PKG=./mesh/... for a part)
	@echo "test: go vet $(PKG)"
	@$(GO) vet $(PKG)
	@echo "test: go test $(PKG)"
	@$(GO) test -timeout $(TIMEOUT) $(PKG)

race: ## the tests under the race detector (PKG=...)
	@scripts/setup race
	@echo "race: go test -race $(PKG)"
	@CGO_ENABLED=1 $(GO) test -race -timeout $(TIMEOUT) $(PKG)

lint: ## gofmt, go vet, staticcheck, the layering and the docs
	@scripts/lint $(PKG)

fuzz: ## every fuzzer of the module, FUZZTIME each (FUZZTIME=5s PKG=./internal/wire)
	@scripts/fuzz $(PKG)

bench: ## benchmarks (BENCH=regexp PKG=./tests/bench)
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

soak: setup ## the tests that take minutes: leaks, and chaos for SOAK=5m
	@RANVIER_SOAK=$(SOAK) $(GO) test -count=1 -v -timeout 60m -run 'LeaveNothing|Storm|AMillion' ./routing ./mesh ./tests/chaos

interop: setup ## every play through all combinations of our and Python's ansible-runner (long)
	@$(GO) test -count=1 -timeout 60m ./tests/interop -all

demo: setup build ## three nodes, and a play that runs two links away
	@scripts/demo

install: build ## install to DESTDIR/PREFIX/bin (PREFIX=/usr/local)
	@install -D -m 0755 bin/ranvier '$(DESTDIR)$(PREFIX)/bin/ranvier'
	@echo "install: $(DESTDIR)$(PREFIX)/bin/ranvier"

setup: ## install what tests and demo need and is not there
	@scripts/setup

clean: ## remove what was built and what the demo left
	@rm -rf bin demo/artifacts
	@echo "clean: bin demo/artifacts"

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
