# SPDX-License-Identifier: BSD-3-Clause
# A thin front of meson: what people type. `make help` lists it.

PREFIX ?= /usr/local

build: build/build.ninja
	ninja -C build

build/build.ninja:
	meson setup build --prefix=$(PREFIX)

deps:
	scripts/install-deps

check:
	scripts/install-deps build test
	scripts/check

# Every FUSE file system that we can get, against real servers; writes docs/daemons.md. ARGS: scripts/check-daemons --help.
check-daemons:
	scripts/install-deps build test daemons
	$(MAKE) build
	scripts/check-daemons $(ARGS)

demo:
	scripts/install-deps build demo
	$(MAKE) build
	scripts/demo

install: build
ifneq ($(origin PREFIX),file)
	meson configure build -Dprefix=$(PREFIX)
	ninja -C build
endif
	meson install -C build --no-rebuild

format:
	find src preload examples tests bench -name '*.[ch]' 2>/dev/null | xargs clang-format -i

clean:
	rm -rf build build-*

help:
	@echo 'make build      compile to build/; the program is build/src/cli/fusewire'
	@echo 'make demo       sshfs, unmodified, mounted in a virtual machine over virtio-fs (as root: installs packages)'
	@echo 'make check      all tests (as root: installs packages)'
	@echo 'make check-daemons  every FUSE file system of docs/daemons.md, which it writes anew (as root; an hour or more)'
	@echo 'make install    to PREFIX, /usr/local unless it says otherwise'
	@echo 'make deps       only install the packages that build, tests and demo need'
	@echo 'make format     run clang-format over the C files'
	@echo 'make clean      remove the build folders'

.PHONY: build deps check check-daemons demo install format clean help
