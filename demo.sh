#!/usr/bin/env bash
# Sets everything up on a fresh Debian or Ubuntu, then shows io_uring_setup failing with ENOMEM on two kernels.
# Arguments go to `whyerrno demo`.
set -eu
cd "$(dirname "$0")"
. scripts/setup.sh

install_packages
unpack_manual
if make_environment requirements-ci.txt ""; then
    exec .venv/bin/whyerrno demo --sample-data sample_data "$@"
fi
say "no virtual environment could be made (see above; no network?); trying this machine's own Python packages"
if ! python3 -c "import click, iced_x86, jinja2, matplotlib, numpy, pygments, rich" 2>/dev/null; then
    say "they are not here either; once there is a network, start $0 again"
    exit 5
fi
exec python3 -m profiler.cli demo --sample-data sample_data "$@"
