#!/usr/bin/env bash
# Check style, formats and types; every check runs, and one that fails fails the whole.
# Called by `make lint`, which sets up .venv first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BIN=$PWD/.venv/bin
failed=()

# run_check NAME COMMAND...: run it, print how long it took, remember a failure.
run_check() {
    local name=$1 start=$SECONDS verdict=ok
    shift
    "$@" || { verdict=FAILED && failed+=("$name"); }
    printf '[lint] %s: %s, %d s\n' "$name" "$verdict" "$((SECONDS - start))"
}

list_files() {
    find . \( -path ./.venv -o -path ./.git -o -path ./build -o -path ./runs \) -prune -o \
        -type f "$@" -print
}

check_clang_format() {
    local files
    mapfile -t files < <(list_files \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \))
    "$BIN/clang-format" --dry-run -Werror "${files[@]}"
}

check_shell() {
    local file
    for file in tools/*.sh tools/launch/*.sh .ci/run; do
        bash -n "$file" || return 1
    done
}

check_ascii() {
    local files
    mapfile -t files < <(list_files \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.cu' \
        -o -name '*.sh' -o -name '*.toml' -o -name '*.md' -o -name Makefile \))
    # grep finds: the check fails.
    ! LC_ALL=C grep -nP '[^\x00-\x7F]' "${files[@]}"
}

# fastssl.loaders is mapped from loaders/: mypy sees it only in a tree where it lies in its place.
check_types() (
    rm -rf build/types
    "$BIN/python" setup.py --quiet build_py --build-lib build/types > build/types.log 2>&1 || {
        cat build/types.log
        exit 1
    }
    cd build/types && "$BIN/mypy" --config-file ../../pyproject.toml -p fastssl
)

mkdir -p build
run_check 'ruff check' "$BIN/ruff" check .
run_check 'ruff format' "$BIN/ruff" format --check .
run_check 'clang-format' check_clang_format
run_check 'shell syntax' check_shell
run_check 'ASCII source' check_ascii
run_check 'types' check_types

if ((${#failed[@]})); then
    printf 'error: lint failed: %s; .venv/bin/ruff check --fix, .venv/bin/ruff format and' \
        "$(IFS=,; echo "${failed[*]}")" >&2
    printf ' .venv/bin/clang-format -i put many of these right\n' >&2
    exit 1
fi
