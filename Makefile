# Everything a person needs; the build itself is Meson's. `make help` lists the targets.
BUILD ?= build
MESON ?= meson
PYTHON ?= /usr/bin/python3

.PHONY: all setup run test bench soak fuzz asan lint format install clean help

all: $(BUILD)/build.ninja ## build build/pipsqueak and build/pipsqueakd
	ninja -C $(BUILD)
	ln -sf src/cli/pipsqueak $(BUILD)/pipsqueak
	ln -sf src/daemon/pipsqueakd $(BUILD)/pipsqueakd

$(BUILD)/build.ninja: meson.build | setup
	$(MESON) setup $(if $(wildcard $@),--reconfigure) $(BUILD) $(MESON_FLAGS)

setup: ## install what is missing (Debian packages)
	tools/setup.sh

run: all ## start a private daemon, deploy and call an example, show where the time goes
	$(PYTHON) tools/demo.py $(BUILD)

test: all ## unit, end-to-end and security tests
	tools/run-tests.sh $(BUILD)

asan: setup ## the same suite with AddressSanitizer and UndefinedBehaviorSanitizer
	PIPSQUEAK_SLOWER=$(or $(PIPSQUEAK_SLOWER),3) $(MAKE) test BUILD=build-asan MESON_FLAGS="-Db_sanitize=address,undefined -Dbuildtype=debug"

soak: all ## half an hour of what proves longer things: kill -9 loops, faults, fuzzing, sanitizers, Debian's own kernel (tools/soak.sh)
	tools/soak.sh $(BUILD)

fuzz: ## each fuzz target for FUZZ_SECONDS (60)
	tools/fuzz.sh

bench: all ## bench/first, fork, resolve, packages, warm: JSON and tables
	$(PYTHON) bench/first.py --build $(BUILD)
	$(PYTHON) bench/fork.py --build $(BUILD)
	$(PYTHON) bench/resolve.py --build $(BUILD)
	$(PYTHON) bench/packages.py --build $(BUILD)
	$(PYTHON) bench/warm.py --build $(BUILD)

lint: setup ## format, caps, headers, rooms, static analysis
	tools/lint.sh

format: ## rewrite the sources as clang-format decides
	clang-format -i $$(git ls-files '*.c' '*.h')

install: all ## install below Meson's prefix (DESTDIR is honoured)
	$(MESON) install -C $(BUILD) --no-rebuild

clean: ## remove what was built
	rm -rf build build-asan build-fuzz build-kernel

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile
