#!/bin/sh
# Cargo runs this in rustc's place for guard's own packages (RUSTC_WORKSPACE_WRAPPER), as `instrument.sh rustc ..`. What is
# fuzzed counts which of its edges an input takes. Dependencies do not: the fuzzer is to look for new ways through guard,
# and they need not be built again. All of these are stable options.
rustc="$1"
shift
crate=
for argument in "$@"; do
    [ "$previous" = --crate-name ] && crate="$argument"
    previous="$argument"
done
case "$crate" in
guard_agent | guard_policy | guard_fuzz)
    exec "$rustc" "$@" \
        -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares \
        -Cllvm-args=-simplifycfg-branch-fold-threshold=0
    ;;
esac
exec "$rustc" "$@"
