# `make` alone prints the targets. They build or fetch the tools and modules that they need; packages of the system
# (gcc, git, python3, strace, fuse3) are a matter of `bash .ci/run`, which installs those that are missing.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULE  := github.com/btcdecoded/holdfast
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS   := $(CURDIR)/.cache/tools
# Servers that the integration tests start (S3 and Google Cloud Storage) are found on this path.
export PATH := $(TOOLS):$(PATH)
# The version comes from above; asking git again fails where somebody else owns the checkout.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

GOTESTFLAGS ?= -timeout 15m
FUZZTIME    ?= 5s

.PHONY: help build test setup lint vuln arch unit integration demo fuzz bench soak man clean

help: ## this help
	@echo "Holdfast: backup and recovery. Targets:"; echo
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## bin/holdfast, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/holdfast ./hostagent

test: build lint arch unit integration ## everything: set-up, build, lint, architecture, unit and integration tests
	@# What was published since about a dependency must not break a tree that has not changed: here it only warns.
	@$(MAKE) --no-print-directory vuln || echo "warning: vulnerabilities, or no answer: see above; this alone fails no test"

setup: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt $(TOOLS)/versitygw $(TOOLS)/fake-gcs-server ## builds the tools that tests and lint need into .cache/tools

lint: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt ## go vet, golangci-lint, gofumpt
	go vet ./...
	@unformatted=$$(find . -name '*.go' -not -path './.cache/*' -not -path './.git/*' -print0 | xargs -0 gofumpt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofumpt:"; echo "$$unformatted"; exit 1; fi
	golangci-lint run --allow-parallel-runners ./...

vuln: $(TOOLS)/govulncheck ## known vulnerabilities; fails on one, and where Go's database of them can't be reached
	timeout 5m govulncheck ./...

arch: ## the layers of the code, as tests
	go test ./test/arch

unit: ## tests of each package, with the command line's scripts, under the race detector
	go test -race $(GOTESTFLAGS) $$(go list ./... | grep -v /holdfast/test/)

integration: setup ## the real binary, real servers, the demo, the guide and a second reader of the format
	go test $(GOTESTFLAGS) ./test/...

demo: build ## the main job on real data, told step by step; needs no account and leaves nothing behind
	@test/demo/demo.sh bin/holdfast

fuzz: ## each fuzz target for FUZZTIME (5s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$package; \
		done; \
	done

bench: setup ## side by side with restic, kopia and borg, on 2.5 GB; an hour on a quiet machine; BENCH="-rounds 3" passes flags
	go run ./test/bench $(BENCH)

soak: setup ## a thousand kills, ten thousand damages, bad networks and clocks: hours; SOAK="-kills 50 -seed 7" passes flags
	go test ./test/soak -count=1 -v -timeout 0 -args -seed 0 -kills 1000 -damages 10000 $(SOAK)

man: build ## man pages into bin/man
	bin/holdfast man --dir bin/man

clean: ## removes what was built, and the tools
	rm -rf bin .cache

$(TOOLS)/golangci-lint: PACKAGE = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/gofumpt: PACKAGE = mvdan.cc/gofumpt
$(TOOLS)/govulncheck: PACKAGE = golang.org/x/vuln/cmd/govulncheck
$(TOOLS)/versitygw: PACKAGE = github.com/versity/versitygw/cmd/versitygw
$(TOOLS)/fake-gcs-server: PACKAGE = github.com/fsouza/fake-gcs-server
$(TOOLS)/%: test/tools/go.sum
	@echo "building $* (once)"
	@mkdir -p $(TOOLS)
	cd test/tools && go build -trimpath -o $@ $(PACKAGE)
	@touch $@
