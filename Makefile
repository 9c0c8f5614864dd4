# make            the libraries and the program mongoose, in build/; smaller ones: docs/sizes.md
# make lib        the shared and the static library alone
# make program    the program that shares a directory
# make examples   all of examples/ into build/
# make run        the smallest example, on http://127.0.0.1:8080/ (PORT=...), until Ctrl-C
# make test       all tests; make test-deps installs what they use (Debian)
# make bench      the library beside other servers, see benches/README.md
# make instructions   whether a request takes more instructions than before
# make calls      whether a request makes other system calls than expected
# make docs       the man pages and the HTML manual anew, from the header and the pages of docs
# make install    what `make` has built, below PREFIX, default /usr/local (DESTDIR, LIBDIR, INCLUDEDIR, BINDIR,
#                 DATADIR, MANDIR, DOCDIR, UNITDIR); make install-strip: without debug information
# make third-party    THIRD-PARTY and mongoose.cdx.json anew: what is linked in, and its licences

VERSION := 5.0.0
MAJOR   := 5
PORT    ?= 8080

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
DATADIR    ?= $(PREFIX)/share
UNITDIR    ?= $(PREFIX)/lib/systemd/system
MANDIR     ?= $(DATADIR)/man
DOCDIR     ?= $(DATADIR)/doc/mongoose

CC      ?= cc
CFLAGS  ?= -O2 -Wall -Wextra
CARGO   ?= cargo
INSTALL ?= install

# Another machine than this one, by its name of Rust: TARGET=aarch64-unknown-linux-gnu CC=aarch64-linux-gnu-gcc
TARGET  ?=
$(if $(filter-out 0 1,$(words $(TARGET))),$(error TARGET is one name, not "$(TARGET)"))
CROSS   := $(patsubst %gcc,%,$(filter %-gcc,$(CC)))
STRIP   ?= $(CROSS)strip
OBJCOPY ?= $(CROSS)objcopy
READELF ?= $(CROSS)readelf

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE    := $(TARGET_DIR)/$(if $(TARGET),$(TARGET)/)release
BUILD      := build$(TARGET:%=/%)
SO         := libmongoose.so.$(VERSION)

# No path of this machine gets into what is built, so that it is the same wherever it is built.
CRATES := $(wildcard $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src/*) $(CURDIR)/vendor
# A path with a space cannot be written in these flags.
REMAP  := $(if $(filter 1,$(words $(CURDIR))),$(CURDIR)=mongoose $(CRATES:%=%=crates))
FLAGS  := $(RUSTFLAGS) $(REMAP:%=--remap-path-prefix=%)
C_MAPS := $(REMAP:%=-ffile-prefix-map=%)
# CFLAGS of the environment are meant for all C; the default above is for the examples.
C_FLAGS := $(if $(filter environment,$(origin CFLAGS)),$(CFLAGS)) $(C_MAPS)
# The compiler of the other machine also links for it.
LINKER := CARGO_TARGET_$(shell echo '$(TARGET)' | tr a-z- A-Z_)_LINKER='$(CC)' \
  CC_$(subst -,_,$(TARGET))='$(CC)'
SETTINGS := RUSTFLAGS='$(strip $(FLAGS))' CFLAGS='$(strip $(C_FLAGS))' $(if $(TARGET),$(LINKER))

all: lib program

# Much of the library would be copies of functions in those that call them. What a request runs through is marked
# #[inline] instead, for which LLVM has a threshold of its own (docs/sizes.md).
INLINING := -Cllvm-args=-inline-threshold=100

# Without the rlib among the crate types, which rules link-time optimisation out.
lib:
	$(SETTINGS) $(CARGO) rustc --locked --release --lib --crate-type cdylib,staticlib $(TARGET:%=--target %) $(CARGO_FLAGS) -- $(INLINING)
	@mkdir -p $(BUILD)
	@cmp -s $(RELEASE)/libmongoose.so $(BUILD)/$(SO) || \
	  $(INSTALL) -m 755 $(RELEASE)/libmongoose.so $(BUILD)/$(SO)
	@CC='$(CC)' READELF='$(READELF)' OBJCOPY='$(OBJCOPY)' packaging/localise $(RELEASE)/libmongoose.a $(BUILD)/libmongoose.a
	@ln -sf $(SO) $(BUILD)/libmongoose.so.$(MAJOR)
	@ln -sf libmongoose.so.$(MAJOR) $(BUILD)/libmongoose.so

# A second build, since cargo makes libraries and a program of one package in a different way.
PROGRAM_FEATURES := program$(if $(findstring --no-default-features,$(CARGO_FLAGS)),, self-signed)

program:
	$(SETTINGS) $(CARGO) build --locked --profile program --bin mongoose --features '$(PROGRAM_FEATURES)' \
	  $(TARGET:%=--target %) $(CARGO_FLAGS)
	@mkdir -p $(BUILD)
	@cmp -s $(RELEASE:%release=%program)/mongoose $(BUILD)/mongoose || \
	  $(INSTALL) -m 755 $(RELEASE:%release=%program)/mongoose $(BUILD)/mongoose

$(BUILD)/%: examples/%.c include/mongoose.h | lib
	$(CC) $(CFLAGS) -Iinclude -o $@ $< -L$(BUILD) -lmongoose -lpthread -Wl,-rpath,'$$ORIGIN'

$(BUILD)/%: examples/%.cpp include/mongoose.h examples/mongoose.hpp | lib
	$(CXX) $(CFLAGS) -Iinclude -o $@ $< -L$(BUILD) -lmongoose -lpthread -Wl,-rpath,'$$ORIGIN'

# The example with files of its own, and hiredis: examples/cluster/run builds and starts it.
$(BUILD)/cluster: examples/cluster/chat.c examples/cluster/bus.c examples/cluster/bus.h include/mongoose.h | lib
	$(CC) $(CFLAGS) -pedantic -Iinclude -o $@ $(filter %.c,$^) -L$(BUILD) -lmongoose -lhiredis -lpthread \
	  -Wl,-rpath,'$$ORIGIN'

# All of them but the cluster, which wants hiredis.
EXAMPLES := $(patsubst examples/%,$(BUILD)/%,$(basename $(wildcard examples/*.c examples/*.cpp)))

examples: $(EXAMPLES)

run: $(BUILD)/hello
	@$(BUILD)/hello $(PORT)

test:
	CARGO='$(CARGO)' CARGO_TARGET_DIR='$(TARGET_DIR)' tests/all

# What the tests use beyond a compiler and make; without it some of them are skipped.
test-deps:
	$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y --no-upgrade \
	  $$(sed -n 's/^[^# ][^ ]* \([^- ][^ ]*\).*/\1/p' tests/tools)

# The C programs of the tests under valgrind.
valgrind:
	MG_TEST_VALGRIND=1 $(CARGO) test --locked --test c_boundary

# The C programs of the tests and the library under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitizers:
	CARGO='$(CARGO)' CARGO_TARGET_DIR='$(TARGET_DIR)' tests/sanitizers/run $(SANITIZERS_ARGS)

# The tests of the C boundary against a server whose calls take longer than they should.
slow:
	tests/slow/run

# Each call of the system fails once, in each way that it can: docs/robustness.md. Takes half an hour;
# INJECT_SECONDS=50 for a part of it.
inject:
	CARGO='$(CARGO)' tests/inject/run $(INJECT_SECONDS:%=--seconds %)

# The queues between threads, in every order that the memory model allows.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET_DIR)/loom CARGO_PROFILE_RELEASE_LTO=off \
	  $(CARGO) test --locked --release --lib --no-default-features shared::queue

# The C programs of the tests on other machines, natively or under qemu: docs/cross.md.
cross:
	tests/cross/run $(TARGETS)

# What the README says, in a Debian that has what it names and nothing else. Takes root and debootstrap.
clean-machine:
	tests/clean-machine/run

# Random input, ten minutes for each target; FUZZ_SECONDS=20 for a short look.
fuzz:
	fuzz/run $(or $(FUZZ_SECONDS),600)

# Framing as a second parser sees it; FRAMING_COUNT=10000000 for a short look. Takes node-llhttp (Debian).
framing:
	CARGO_TARGET_DIR='$(TARGET_DIR)' tests/framing/run $(FRAMING_COUNT)

# CPU time, speed and memory beside other servers; BENCH_ARGS=--publish renews docs/benchmarks.
bench:
	benches/compare $(BENCH_ARGS)

# Instructions for a request, against the numbers that are kept in benches/instructions.json.
instructions:
	benches/instructions

# The system calls for a request, which have to be the expected ones. Takes strace.
calls:
	benches/calls

# The pages of the examples in a headless Chromium.
browser:
	tests/browser/run

# The websocket testsuite; see the script for what it takes.
autobahn:
	tests/autobahn/run
	tests/autobahn/run --deflate

# WebDAV: the testsuite litmus, the client cadaver, and the drives of GNOME's file manager.
litmus:
	tests/litmus/run

cadaver:
	tests/cadaver/run

gio:
	tests/gio/run

# The clients that people have, for their files and for programs: rclone, davfs2, gio and others.
drives:
	tests/drives/run --long

# An hour of mixed load with rude clients, and a crowd of slow ones; SOAK_SECONDS=20 for a short look,
# SOAK_PLOT=FOLDER for a plot.
soak:
	tests/soak/run $(or $(SOAK_SECONDS),3600)

# An hour of random worlds, in which nothing may be lost, doubled or misled; WORLDS_SECONDS=60 for a short look.
worlds:
	tests/worlds/run $(or $(WORLDS_SECONDS),3600)

# What is linked in, for those who package the library.
third-party:
	packaging/third-party

# Whether two builds in two folders are the same, byte by byte. Builds everything twice.
reproducible:
	tests/reproducible/run

# Writes include/mongoose.h anew from the Rust sources.
header:
	UPDATE_HEADER=1 $(CARGO) test --locked --test header

# Writes man/ and docs/manual anew; what is checked in is what is installed, so that nobody needs Python.
docs:
	docs/generate

# Paths below PREFIX are written relative to it, as pkg-config expects.
FILL = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@MAJOR@|$(MAJOR)|g' -e 's|@PREFIX@|$(PREFIX)|g'
FILL_PC = $(FILL) -e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
  -e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|'
FILL_CMAKE = $(FILL) -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g'
D_LIB     := $(DESTDIR)$(LIBDIR)
D_INCLUDE := $(DESTDIR)$(INCLUDEDIR)
D_BIN     := $(DESTDIR)$(BINDIR)
D_UNITS   := $(DESTDIR)$(UNITDIR)
# Where shells look for completions.
D_BASH    := $(DESTDIR)$(DATADIR)/bash-completion/completions
D_ZSH     := $(DESTDIR)$(DATADIR)/zsh/site-functions
D_FISH    := $(DESTDIR)$(DATADIR)/fish/vendor_completions.d
D_MAN     := $(DESTDIR)$(MANDIR)
D_DOC     := $(DESTDIR)$(DOCDIR)
MAN_PAGES := $(notdir $(wildcard man/*.[135]))

# Copies what is built, and builds nothing: root may have no Rust.
install:
	@if ! test -f $(BUILD)/$(SO) || ! test -f $(BUILD)/libmongoose.a || ! test -f $(BUILD)/mongoose; then \
	  echo 'Nothing is built yet: `make` comes first, then `make install`.' >&2; exit 1; fi
	$(INSTALL) -d '$(D_LIB)/pkgconfig' '$(D_LIB)/cmake/mongoose' '$(D_INCLUDE)'
	$(INSTALL) -m 755 $(BUILD)/$(SO) '$(D_LIB)/$(SO)'
	ln -sf $(SO) '$(D_LIB)/libmongoose.so.$(MAJOR)'
	ln -sf libmongoose.so.$(MAJOR) '$(D_LIB)/libmongoose.so'
	$(INSTALL) -m 644 $(BUILD)/libmongoose.a '$(D_LIB)/libmongoose.a'
	$(INSTALL) -m 644 include/mongoose.h '$(D_INCLUDE)/mongoose.h'
	$(FILL_PC) packaging/mongoose.pc.in > '$(D_LIB)/pkgconfig/mongoose.pc'
	for file in mongooseConfig mongooseConfigVersion; do \
	  $(FILL_CMAKE) packaging/$$file.cmake.in > '$(D_LIB)/cmake/mongoose/'$$file.cmake || exit 1; \
	done
	chmod 644 '$(D_LIB)/pkgconfig/mongoose.pc' '$(D_LIB)'/cmake/mongoose/*.cmake
	$(INSTALL) -d '$(D_BIN)' '$(D_UNITS)' '$(D_BASH)' '$(D_ZSH)' '$(D_FISH)'
	$(INSTALL) -m 755 $(BUILD)/mongoose '$(D_BIN)/mongoose'
	for unit in mongoose.service mongoose.socket; do \
	  sed -e 's|@BINDIR@|$(BINDIR)|g' packaging/systemd/$$unit.in > '$(D_UNITS)/'$$unit || exit 1; \
	  chmod 644 '$(D_UNITS)/'$$unit || exit 1; \
	done
	$(INSTALL) -m 644 packaging/completions/mongoose.bash '$(D_BASH)/mongoose'
	$(INSTALL) -m 644 packaging/completions/mongoose.zsh '$(D_ZSH)/_mongoose'
	$(INSTALL) -m 644 packaging/completions/mongoose.fish '$(D_FISH)/mongoose.fish'
	for page in $(MAN_PAGES); do \
	  folder='$(D_MAN)'/man$${page##*.} && $(INSTALL) -d "$$folder" && \
	  $(INSTALL) -m 644 man/$$page "$$folder/$$page" || exit 1; \
	done
	$(INSTALL) -d '$(D_DOC)'
	$(INSTALL) -m 644 docs/manual/index.html '$(D_DOC)/manual.html'
	$(INSTALL) -m 644 LICENSE-MIT LICENSE-APACHE THIRD-PARTY mongoose.cdx.json '$(D_DOC)'
	@test -n '$(DESTDIR)' || packaging/loader '$(LIBDIR)' libmongoose.so.$(MAJOR)

# The archive keeps the names that a linker needs.
install-strip: install
	$(STRIP) --strip-unneeded '$(D_LIB)/$(SO)' '$(D_BIN)/mongoose'
	$(STRIP) --strip-debug --enable-deterministic-archives '$(D_LIB)/libmongoose.a'

uninstall:
	rm -f '$(D_LIB)/$(SO)' '$(D_LIB)/libmongoose.so.$(MAJOR)' '$(D_LIB)/libmongoose.so' \
	  '$(D_LIB)/libmongoose.a' '$(D_INCLUDE)/mongoose.h' '$(D_LIB)/pkgconfig/mongoose.pc'
	rm -rf '$(D_LIB)/cmake/mongoose'
	rm -f '$(D_BIN)/mongoose' '$(D_UNITS)/mongoose.service' '$(D_UNITS)/mongoose.socket' \
	  '$(D_BASH)/mongoose' '$(D_ZSH)/_mongoose' '$(D_FISH)/mongoose.fish'
	for page in $(MAN_PAGES); do rm -f '$(D_MAN)'/man$${page##*.}/$$page; done
	for file in manual.html LICENSE-MIT LICENSE-APACHE THIRD-PARTY mongoose.cdx.json; do rm -f '$(D_DOC)'/$$file; done
	rmdir '$(D_DOC)' 2>/dev/null || true

clean:
	$(CARGO) clean
	rm -rf $(BUILD)

.PHONY: all lib program examples run test test-deps valgrind sanitizers slow inject loom cross clean-machine fuzz framing bench instructions calls browser autobahn \
  litmus cadaver gio drives \
  soak worlds header docs install install-strip uninstall third-party reproducible clean
