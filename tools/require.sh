#!/usr/bin/env bash
# Checks that the tools the build needs are there; says what is missing and how Debian calls it.
set -u
python=${1:-python3}
rust_min=1.94
missing=()

has() { command -v "$1" >/dev/null 2>&1; }

# The toolchain may be installed without standing in PATH yet, as right after rustup.
if ! has cargo; then
    missing+=("cargo, a stable Rust toolchain of version $rust_min or newer (https://rustup.rs, or Debian: apt install rustup && rustup default stable)")
else
    rust=$(cargo --version 2>/dev/null | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$rust_min" "${rust:-0}" | sort -V | head -n1)" != "$rust_min" ]; then
        missing+=("Rust $rust_min or newer; cargo here is ${rust:-unusable} (rustup update stable)")
    fi
fi
has cc || has gcc || has clang || missing+=("a C compiler (Debian: apt install build-essential)")
has c++ || has g++ || has clang++ || missing+=("a C++ compiler (Debian: apt install build-essential)")
has make || missing+=("make (Debian: apt install build-essential)")
if ! echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1; then
    missing+=("OpenSSL's headers, for Kafka over TLS (Debian: apt install libssl-dev pkg-config)")
fi

if ! has "$python"; then
    missing+=("CPython 3.11 or newer; there is no $python (Debian: apt install python3 python3-venv, or say which: make PYTHON=/path/to/python3)")
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null; then
    missing+=("CPython 3.11 or newer; $python is $("$python" --version 2>&1) (say which: make PYTHON=/path/to/python3)")
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=("the venv module of $python (Debian: apt install python3-venv)")
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "millstream cannot be built here yet. Missing:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi
