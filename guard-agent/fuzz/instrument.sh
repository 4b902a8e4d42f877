#!/bin/sh
# Cargo runs this in rustc's place for guard's own crates (RUSTC_WORKSPACE_WRAPPER), as `instrument.sh rustc ..`: what is
# built for the target (not build scripts, not macros) counts which of its edges an input takes. Dependencies do not:
# the fuzzer is to look for new ways through guard. All of it are stable options.
rustc="$1"
shift
case " $* " in
*" --target "*)
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
