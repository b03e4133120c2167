#!/usr/bin/env bash
# Feed hostile bytes to the code that reads JPEGs (csrc/jpeg), guided by coverage, under ASan and
# UBSan. Called by `make fuzz SECONDS=60`; see csrc/README.md.
#
#   tools/fuzz.sh [SECONDS [TARGET...]]   seconds in all; targets: parse transcode decode
#
# Environment:
#   CLANGXX   the clang++ to use; without it clang++, or the newest clang++-N on PATH
#   RUNS      executions of each target, instead of SECONDS
#
# Everything lies in build/fuzz: the seeds, which it makes itself, what was found to reach new code
# (corpus/TARGET, kept from run to run), and for a finding its file (findings/).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
targets=("${@:2}")
BUILD=build/fuzz
SOURCES=csrc/jpeg
FLAGS=(-std=c++17 -O1 -g -Wall -Wextra -Icsrc -fsanitize=address,undefined
    -fno-sanitize-recover=all)

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

find_clang() {
    if [[ -n ${CLANGXX:-} ]]; then
        command -v "$CLANGXX" || die "CLANGXX ($CLANGXX) is not a command; name a clang++, or unset it"
        return
    fi
    command -v clang++ || compgen -c clang++- | sort -t- -k2 -rn | head -n 1 | grep . ||
        die "no clang++, which has the fuzzer; install it (Debian: apt-get install clang" \
            "libclang-rt-dev) or name it: CLANGXX=/path/to/clang++"
}

# Whether the compiler brings the fuzzer's library along and finds jpeglib.h.
check_clang() {
    printf '%s\n' '#include <cstdint>' '#include <cstdio>' '#include <jpeglib.h>' \
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }' |
        "$clang" "${FLAGS[@]}" -fsanitize=fuzzer -x c++ - -o "$BUILD/probe" -ljpeg ||
        die "$clang cannot build a fuzz target; install its run-time library and libjpeg-turbo's" \
            "header (Debian: apt-get install libclang-rt-dev libjpeg-dev)"
}

# All that is free of torch.
build() {
    local library=() name
    mapfile -t library < <(find "$SOURCES" -maxdepth 1 -name '*.cpp' ! -name 'ops_*' | sort)
    printf '%s\n' "${library[@]}" | xargs -P 2 -I {} bash -c \
        '"$0" "${@:2}" -fsanitize=fuzzer-no-link -c "$1" -o "build/fuzz/$(basename "$1" .cpp).o"' \
        "$clang" {} "${FLAGS[@]}"
    for name in "${targets[@]}"; do
        "$clang" "${FLAGS[@]}" -fsanitize=fuzzer "$SOURCES/fuzz/fuzz_$name.cpp" "$BUILD"/*.o \
            -ljpeg -lpthread -o "$BUILD/fuzz_$name"
    done
    "$clang" -std=c++17 -O1 "$SOURCES/fuzz/make_corpus.cpp" -ljpeg -o "$BUILD/make_corpus"
}

run_target() {
    local name=$1 log=$BUILD/$1.log limit=(-max_total_time=$((seconds / ${#targets[@]})))
    [[ -z ${RUNS:-} ]] || limit=(-runs="$RUNS")
    mkdir -p "$BUILD/corpus/$name"
    "$BUILD/fuzz_$name" "${limit[@]}" -max_len=8192 -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$BUILD/findings/" \
        "$BUILD/corpus/$name" "$BUILD/seeds" > "$log" 2>&1 || {
        grep -E 'violated|ERROR|SUMMARY|Test unit' "$log" >&2 || tail -n 20 "$log" >&2
        printf 'error: fuzz_%s found something; to repeat: %s/fuzz_%s FILE of %s/findings\n' \
            "$name" "$BUILD" "$name" "$BUILD" >&2
        exit 1
    }
    printf '[fuzz] %s: %s executions, no finding\n' "$name" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
}

[[ $seconds =~ ^[0-9]+$ ]] || die "SECONDS ($seconds) must be a number of seconds"
((${#targets[@]})) || targets=(parse transcode decode)
for name in "${targets[@]}"; do
    [[ -f $SOURCES/fuzz/fuzz_$name.cpp ]] || die "target ($name) must be parse, transcode or decode"
done
mkdir -p "$BUILD/findings" "$BUILD/seeds"
clang=$(find_clang)
check_clang
rm -f "$BUILD"/*.o
build
"$BUILD/make_corpus" "$BUILD/seeds"
for name in "${targets[@]}"; do run_target "$name"; done
