#!/usr/bin/env bash
# Looks for inputs that break a law of fuzz/src: fuzz/run.sh [--seconds N] [TARGET…]   (by default 60 s of every target)
#
# Needs no nightly toolchain: the gateway has no unsafe code of its own for a sanitizer to watch, so that libFuzzer's
# coverage is all that is asked of the compiler, and the stable one has it. What is found stays in fuzz/target/corpus; an
# input that breaks a law is written to fuzz/artifacts, and belongs into fuzz/corpus as found-… once the law holds again.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PATH:$HOME/.cargo/bin:$PWD/target/build-tools/bin"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
CARGO_FUZZ=0.13.2

seconds=60
targets=()
while (($#)); do
    case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    -*) sed -n '2s/^# //p' "$0" && exit 2 ;;
    *) targets+=("$1") && shift ;;
    esac
done
((${#targets[@]})) || mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)

cargo fuzz --version >/dev/null 2>&1 ||
    cargo install --locked --version "$CARGO_FUZZ" --root target/build-tools --target-dir target/cargo-fuzz cargo-fuzz

# Sixteen parts are built side by side, and the sanitizer costs half the speed.
build=(--release --sanitizer none --codegen-units 16)
cargo fuzz build "${build[@]}" # all at once, so that none waits for another

for target in "${targets[@]}"; do
    printf '\n==> %s, %s s\n' "$target" "$seconds"
    mkdir -p "fuzz/target/corpus/$target"
    dictionary=()
    [[ -f fuzz/dictionaries/$target ]] && dictionary=("-dict=fuzz/dictionaries/$target")
    cargo fuzz run "${build[@]}" "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "${dictionary[@]}"
done
