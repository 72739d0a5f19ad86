# labswarm: `make help` lists the targets.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TERMINALS ?= 3
UI        ?= console
FUZZTIME  ?= 20s
export CGO_ENABLED ?= 0
export GOFLAGS := -trimpath $(GOFLAGS)

BUILD   := build
BIN     := $(BUILD)/bin
BOOT    := $(BUILD)/boot
GOLDEN  := $(BUILD)/golden
TOOLS   := $(BUILD)/tools
GO_SRC  := $(shell find . -name '*.go' -not -path './build/*' 2>/dev/null) go.mod go.sum
LDFLAGS := -s -w

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

# ---- building ---------------------------------------------------------------

.PHONY: build
build: $(BIN)/labswarm $(BIN)/labswarm-agent $(BIN)/labswarm-enrol ## all binaries, into build/bin

$(BIN)/labswarm: $(GO_SRC)
	@mkdir -p $(BIN)
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/labswarm

$(BIN)/labswarm-agent: $(GO_SRC)
	@mkdir -p $(BIN)
	go build -ldflags '$(LDFLAGS)' -o $@ ./initramfs-agent

.PHONY: docs
docs: ## write the generated documents anew (docs/KEYS.md)
	@go test -count=1 ./tui/keymap -run TestKeysDocument -update

# The agent of the enrol profile: no code in it writes a disk.
$(BIN)/labswarm-enrol: $(GO_SRC)
	@mkdir -p $(BIN)
	go build -tags enrolonly -ldflags '$(LDFLAGS)' -o $@ ./initramfs-agent

.PHONY: setup
setup: ## install the Debian packages that the demo and all tests need (root)
	@scripts/setup.sh

# Boot files are fetched once; remove build/boot to fetch them again.
$(BOOT)/bootfiles.json: scripts/bootfiles.sh scripts/lib.sh
	scripts/bootfiles.sh $(BOOT)

.PHONY: bootfiles
bootfiles: setup $(BOOT)/bootfiles.json ## shim, GRUB, iPXE and kernels from Debian's packages

$(BOOT)/virtual/initrd.img: $(BIN)/labswarm-agent $(BOOT)/bootfiles.json scripts/modules-virtual.txt $(wildcard scripts/mkinitramfs/*.go)
	go run ./scripts/mkinitramfs --set virtual --kernel-root $(BUILD)/cache/kernel-virtual --modules scripts/modules-virtual.txt --agent $(BIN)/labswarm-agent -o $@

$(BOOT)/lab/initrd.img: $(BIN)/labswarm-agent $(BOOT)/bootfiles.json scripts/modules-lab.txt $(wildcard scripts/mkinitramfs/*.go)
	go run ./scripts/mkinitramfs --set lab --kernel-root $(BUILD)/cache/kernel-lab --modules scripts/modules-lab.txt --firmware $(BUILD)/cache/firmware --agent $(BIN)/labswarm-agent -o $@

# For learn mode: the same modules with the agent that cannot write.
$(BOOT)/virtual/initrd-enrol.img: $(BIN)/labswarm-enrol $(BOOT)/bootfiles.json scripts/modules-virtual.txt $(wildcard scripts/mkinitramfs/*.go)
	go run ./scripts/mkinitramfs --set virtual --kernel-root $(BUILD)/cache/kernel-virtual --modules scripts/modules-virtual.txt --agent $(BIN)/labswarm-enrol -o $@

$(BOOT)/lab/initrd-enrol.img: $(BIN)/labswarm-enrol $(BOOT)/bootfiles.json scripts/modules-lab.txt $(wildcard scripts/mkinitramfs/*.go)
	go run ./scripts/mkinitramfs --set lab --kernel-root $(BUILD)/cache/kernel-lab --modules scripts/modules-lab.txt --firmware $(BUILD)/cache/firmware --agent $(BIN)/labswarm-enrol -o $@

INITRAMFS := $(foreach set,virtual lab,$(BOOT)/$(set)/initrd.img $(BOOT)/$(set)/initrd-enrol.img)

.PHONY: initramfs
initramfs: bootfiles ## the initramfs: virtual (classroom of VMs) and lab (real PCs, the default in build/boot), each for jobs and for learn mode
	@$(MAKE) --no-print-directory $(INITRAMFS)
	@for f in vmlinuz initrd.img initrd-enrol.img; do ln -f $(BOOT)/lab/$$f $(BOOT)/$$f; done
	@ls -l $(INITRAMFS)

$(GOLDEN)/debian.img: scripts/golden-debian.sh scripts/lib.sh scripts/disk.sh
	scripts/golden-debian.sh $@

$(GOLDEN)/tiny.img: scripts/golden-tiny.sh scripts/lib.sh scripts/disk.sh $(wildcard scripts/tinyos/*.go)
	scripts/golden-tiny.sh $@

.PHONY: golden
golden: setup ## the golden images: a real Debian and a tiny OS for tests
	@$(MAKE) --no-print-directory $(GOLDEN)/debian.img $(GOLDEN)/tiny.img

# ---- installing -------------------------------------------------------------

prefix     ?= /usr/local
bindir     ?= $(prefix)/bin
datadir    ?= $(prefix)/share
sysconfdir ?= /etc
unitdir    ?= /usr/lib/systemd/system
sysusersdir ?= /usr/lib/sysusers.d
AS_PLACED  := sed -e 's|@bindir@|$(bindir)|g' -e 's|@datadir@|$(datadir)|g'

.PHONY: install
install: ## program, boot files, unit and example configuration: prefix=/usr/local DESTDIR=; never enables the service
	@test -x $(BIN)/labswarm || { echo "make build first"; exit 1; }
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(datadir)/labswarm/boot $(DESTDIR)$(unitdir) $(DESTDIR)$(sysusersdir)
	install -d -m 0750 $(DESTDIR)$(sysconfdir)/labswarm $(DESTDIR)$(sysconfdir)/labswarm/conf.d
	install -m 0755 $(BIN)/labswarm $(DESTDIR)$(bindir)/labswarm
	@if [ -f $(BOOT)/initrd.img ]; then find -L $(BOOT)/ -maxdepth 1 -type f -exec install -m 0644 -t $(DESTDIR)$(datadir)/labswarm/boot {} + ; \
		else echo "no boot files yet: make initramfs, then make install again"; fi
	$(AS_PLACED) scripts/labswarm.service > $(DESTDIR)$(unitdir)/labswarm.service
	install -m 0644 scripts/labswarm.sysusers $(DESTDIR)$(sysusersdir)/labswarm.conf
	@# A configuration that is there belongs to its admin.
	@test -e $(DESTDIR)$(sysconfdir)/labswarm/labswarm.toml || { $(AS_PLACED) scripts/labswarm.toml > $(DESTDIR)$(sysconfdir)/labswarm/labswarm.toml; \
		chmod 0640 $(DESTDIR)$(sysconfdir)/labswarm/labswarm.toml; }
	@# The service's user reads the configuration. In a package (DESTDIR) that is for the package to do.
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then systemd-sysusers labswarm.conf && chgrp -R labswarm $(sysconfdir)/labswarm; \
		if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi; fi
	@echo "installed. Not enabled: write the interface into $(sysconfdir)/labswarm/labswarm.toml, then: systemctl enable --now labswarm"

# ---- running ----------------------------------------------------------------

.PHONY: demo
demo: setup ## reimage a virtual classroom end to end: TERMINALS=3 UI=console|none
	@$(MAKE) --no-print-directory $(BIN)/labswarm $(BOOT)/virtual/initrd.img $(GOLDEN)/debian.img
	@mkdir -p $(BUILD)/demo
	$(BIN)/labswarm classroom run --image-file $(GOLDEN)/debian.img --boot-dir $(BOOT) \
		--terminals $(TERMINALS) --firmware bios,uefi,secureboot --dhcp proxy \
		--expect '{host} login:' --check-disks --ui $(UI) --report $(BUILD)/demo/report.json

# ---- proving ----------------------------------------------------------------

.PHONY: test-unit
test-unit: ## unit tests: no root, no network
	scripts/test.sh unit

.PHONY: test-integration
test-integration: setup ## namespaces, loop devices, other people's clients (root)
	scripts/test.sh integration

.PHONY: test-e2e
test-e2e: setup ## virtual PCs under QEMU (root)
	@$(MAKE) --no-print-directory $(BIN)/labswarm $(BOOT)/virtual/initrd.img $(GOLDEN)/tiny.img
	scripts/test.sh e2e

.PHONY: test
test: ## all tests; ends with the list of what was skipped
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory $(BIN)/labswarm $(BOOT)/virtual/initrd.img $(BOOT)/lab/initrd.img $(GOLDEN)/tiny.img
	scripts/test.sh all

.PHONY: race
race: ## unit tests under the race detector (needs gcc)
	CGO_ENABLED=1 go test -race ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

$(TOOLS)/golangci-lint: scripts/tools.mod scripts/tools.sum
	@mkdir -p $(TOOLS)
	go build -modfile=scripts/tools.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## gofmt, vet and golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed: $$out"; exit 1; fi
	GOLANGCI_LINT_CACHE=$(abspath $(BUILD)/cache/lint) $(TOOLS)/golangci-lint run ./...

.PHONY: openapi
openapi: ## docs/openapi.json and the codes in docs/API.md, from the route table and the types
	go test ./server/httpapi -run 'TestOpenAPI|TestCodesAreListed' -count=1 -args -update

.PHONY: ci
ci: ## what a merge must pass: all tests (a skip is a failure) and lint
	LABSWARM_NO_SKIP=1 $(MAKE) --no-print-directory test
	$(MAKE) --no-print-directory lint

.PHONY: bench
bench: ## Go benchmarks of the hot paths
	go test -run '^$$' -bench . -benchmem ./images/... ./swarm/...

.PHONY: bench-api
bench-api: ## CPU of the server for the reports of 500 agents over TLS, 3 minutes: table and build/bench/api.json
	@mkdir -p $(BUILD)/bench
	BENCH_OUT=$(abspath $(BUILD)/bench/api.json) go test ./server/daemon -run '^$$' -bench '^BenchmarkReports$$' -benchtime 1x -timeout 15m

BENCH_SWARM  ?= standard
BENCH_ENGINE ?= engine

.PHONY: setup-bench
setup-bench: ## install the other programs that bench-swarm compares with (root)
	@scripts/setup.sh bench

.PHONY: bench-swarm
bench-swarm: ## ours beside other programs in shaped namespaces (root), 25 minutes: BENCH_SWARM="quick", "raw disturb" or flags
	go run ./e2e/swarmbench --out $(BUILD)/bench/swarm.json $(BENCH_SWARM)

.PHONY: bench-engine
bench-engine: ## 1 -> 1 and 1 -> 3 unshaped, plain, TLS, compressed (root): BENCH_ENGINE="--pprof DIR engine" for CPU profiles
	go run ./e2e/swarmbench --out $(BUILD)/bench/engine.json $(BENCH_ENGINE)

KILLS ?= 1000

.PHONY: bar-kill
bar-kill: ## SIGKILL the server KILLS=1000 times in jobs of 50 hosts (root), 10 to 15 minutes; then power cuts with fsync on and off: table and build/bench/kill.json
	@mkdir -p $(BUILD)/bench
	KILLBAR_KILLS=$(KILLS) KILLBAR_OUT=$(abspath $(BUILD)/bench/kill.json) go test -tags integration ./server/daemon -count=1 -v -timeout 2h \
		-run '^(TestServerKilledAgainAndAgain|TestServerPowerCuts)$$'

BENCH_IMAGES ?=

.PHONY: bench-images
bench-images: ## import, verify beside dd and hashing, used map, memory, one minute (root for loop devices): BENCH_IMAGES="--mib 2048"
	@mkdir -p $(BUILD)/bench
	go run ./e2e/imagebench --tmp $(BUILD)/bench --out $(BUILD)/bench/images.json $(BENCH_IMAGES)

SIM ?=

.PHONY: sim
sim: ## 1 000 simulated swarms and the table of time against hosts, 5 minutes: SIM="--seed N" replays one
	go run ./e2e/swarmsim --out $(BUILD)/sim $(SIM)

.PHONY: clean
clean: ## remove build/ (the boot files and golden images too)
	rm -rf $(BUILD)
