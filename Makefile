# Everything a developer does here. `make` or `make help` lists it.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -s -w -X github.com/idpool/idpool/api.release=$(VERSION) -X github.com/idpool/idpool/api.commit=$(COMMIT)
IMAGE   := build/image

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## poolagent and poolctl into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: ## the guided tour on an embedded etcd
	$(GO) run ./cmd/poolctl demo

.PHONY: test
test: ## all tests (as root: those of /proc and of switching uids too)
	ETCD_VERIFY=all $(GO) test ./...

.PHONY: race
race: ## all tests but e2e under the race detector
	ETCD_VERIFY=all $(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v /test/e2e)

.PHONY: e2e
e2e: ## the tests with real binaries, verbosely
	$(GO) test -count=1 -v ./test/e2e/...

.PHONY: walk
walk: ## every operation through every point in every mode: errors, lost answers, crashes
	IDPOOL_WALK=all $(GO) test -count=1 -v -timeout 2h -run 'TestWalk|KillAtEveryPoint' ./leases ./vlan ./test/e2e

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (a count of inputs like 100000x, or a duration)
	./.ci/fuzz $(or $(FUZZTIME),5000x)

.PHONY: mutation
mutation: ## undo each guard of the product (M: names, or rest): a test must notice
	IDPOOL_MUTATION=$(or $(M),all) $(GO) test -count=1 -timeout 60m -v -run TestMutations ./test/mutation

.PHONY: explore
explore: ## state exploration of the engine on two cores: STATES altogether (1000000), ONLY=a scenario, SEED=a number
	printf '0/2\n1/2\n' | IDPOOL_EXPLORE=$(or $(STATES),1000000) IDPOOL_EXPLORE_SEED=$(SEED) \
		xargs -P 2 -I % env IDPOOL_EXPLORE_PART=% $(GO) test -count=1 -v -timeout 60m -run 'TestExplore/$(ONLY)' ./leases

.PHONY: bench
bench: ## the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./idset ./uidpool ./leases ./test/bench

.PHONY: faults
faults: ## every fault injected and healed once, as root
	ROBUST_LONG=1 $(GO) test -count=1 -v -timeout 20m ./test/e2e/robust/fault

CAMPAIGN := $(GO) run ./test/e2e/robust/campaign

.PHONY: robust
robust: ## one run under faults, as root: SEED (fresh if not given), FOR (60s), FAULTS (all; names separated by commas)
	$(CAMPAIGN) run --for $(or $(FOR),60s) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--only $(FAULTS))

.PHONY: robust-campaign
robust-campaign: ## RUNS (100) seeds under faults, PARALLEL (2) at once; goes on where it ended
	$(CAMPAIGN) campaign --runs $(or $(RUNS),100) --for $(or $(FOR),60s) --parallel $(or $(PARALLEL),2)

.PHONY: robust-report
robust-report: ## the campaign's results into docs/reliability.md
	$(CAMPAIGN) report

.PHONY: restore-test
restore-test: ## every scenario of a restored etcd, TIMES (20) in a row
	$(GO) test -count=$(or $(TIMES),20) -timeout 60m -run TestRestore ./leases

.PHONY: soak
soak: ## HOURS (1) of traffic with faults and an audit of leaks, into docs/reliability.md
	$(CAMPAIGN) soak --hours $(or $(HOURS),1) $(if $(SEED),--seed $(SEED))

.PHONY: lint
lint: ## gofmt, vet, staticcheck, and vet for macOS
	@bad=$$(gofmt -l .); test -z "$$bad" || { echo "not gofmt'ed: $$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	GOOS=darwin $(GO) vet ./api ./idset ./problem ./uidpool ./leases ./cmd/poolctl

# The module in packaging/ describes the version itself, unless one is given here.
PACKAGING := cd packaging && $(GO) run . $(if $(filter file,$(origin VERSION)),,-version $(VERSION))

.PHONY: packages
packages: ## .deb and .rpm for linux amd64 and arm64 into build/dist
	$(PACKAGING) packages

.PHONY: release-dry
release-dry: ## what a release consists of: packages, archives, SHA256SUMS, into build/dist
	$(PACKAGING) release

.PHONY: packages-test
packages-test: ## what is in the packages, and as root on Debian: docs/install.md on two machines
	cd packaging && export CGO_ENABLED=0 && $(GO) vet ./... && $(GO) test -count=1 -timeout 20m ./...

.PHONY: image
image: ## the agent's image, from static binaries, without a network and without a registry
	mkdir -p $(IMAGE)/agent
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(IMAGE)/agent/ ./cmd/poolagent ./cmd/poolctl
	docker build -q -t idpool/idpool:dev -f Dockerfile $(IMAGE)/agent

.PHONY: images
images: image ## the same, and one of etcd for where the official one cannot be had
	mkdir -p $(IMAGE)/etcd
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(IMAGE)/etcd/etcd go.etcd.io/etcd/server/v3
	cd test/compose/etcd && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/$(IMAGE)/etcd/etcdctl go.etcd.io/etcd/etcdctl/v3
	docker build -q -t idpool/etcd:dev -f test/compose/etcd/Dockerfile $(IMAGE)/etcd

# What `make compose-test` runs in place of the agent's image.
.PHONY: test-image
test-image: images
	mkdir -p $(IMAGE)/test
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(IMAGE)/test/ ./test/compose/tenant
	cp $(IMAGE)/etcd/etcdctl $(IMAGE)/test/
	docker build -q -t idpool/test:dev -f test/compose/Dockerfile $(IMAGE)/test

.PHONY: compose-test
compose-test: ## docker-compose.yml with images built here: up, faults across containers, down
	./test/compose/run

.PHONY: ci
ci: ## what lands or rejects a change
	./.ci/run

.PHONY: clean
clean: ## what the targets above made
	rm -rf bin build
