#!/usr/bin/env bash
# Sets everything up on a fresh Debian or Ubuntu, then shows io_uring_setup failing with ENOMEM on two kernels.
# Arguments go to `whyerrno demo`.
set -eu
cd "$(dirname "$0")"
. scripts/setup.sh

install_packages
if make_environment requirements-ci.txt ""; then
    exec .venv/bin/whyerrno demo --sample-data sample_data "$@"
fi
say "no virtual environment could be made (no network?); trying the packages of this machine's own Python"
exec python3 -m profiler.cli demo --sample-data sample_data "$@"
