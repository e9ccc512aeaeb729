#!/usr/bin/env bash
# Sets everything up on a fresh Debian or Ubuntu, then runs the linters and every test, those on virtual machines
# included. Arguments go to pytest. WHYERRNO_REQUIRE_ALL=1 makes a test that cannot run here fail.
set -eu
cd "$(dirname "$0")"
. scripts/setup.sh

# shellcheck disable=SC2086
install_packages $TEST_PACKAGES
unpack_manual
make_environment requirements-ci.txt "[test]"
export PATH="$PWD/.venv/bin:$PATH"

linters=0
ruff format --check . || linters=1
ruff check . || linters=1
mypy -p profiler -p loadgen -p reports || linters=1

tests=0
python -m pytest "$@" || tests=$?
[ "$linters" = 0 ] || say "the linters found something; see above"
[ "$tests" = 0 ] && exit "$linters"
exit "$tests"
