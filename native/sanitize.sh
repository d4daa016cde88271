#!/usr/bin/env bash
# Builds the kernels and their test without Python under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it.
# Usage: native/sanitize.sh [build folder] [trials a level]
set -euo pipefail
source="$(cd "$(dirname "$0")" && pwd)"
build="${1:-build/sanitize}"
cmake -S "$source" -B "$build" -DSANITIZE=ON -DEMULATE_AMX=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo > /dev/null
cmake --build "$build" --target kernels_test --parallel 2
"$build/kernels_test" "${2:-100}"
