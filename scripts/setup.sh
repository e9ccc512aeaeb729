# What demo.sh and test.sh share: packages through apt, a virtual environment in .venv, the install.
# Sourced by bash from the root of the tree; `set -eu` is in force.

# Everything that the project starts, one list for Debian and Ubuntu alike.
PACKAGES="python3 python3-venv qemu-system-x86 busybox-static gcc libc6-dev xz-utils util-linux manpages-dev debian-archive-keyring"
TEST_PACKAGES="chromium groff-base llvm openssh-client openssh-server"

say() { printf '%s\n' "$0: $*" >&2; }

# perf and chromium are packaged under other names, or not as packages, by Ubuntu.
packages_here() {
    local wanted="$PACKAGES $*" id=debian
    [ -r /etc/os-release ] && id=$(. /etc/os-release && printf %s "${ID:-debian}")
    case $id in
        ubuntu) wanted="${wanted/chromium/} linux-tools-generic" ;;
        *) wanted="$wanted linux-perf" ;;
    esac
    printf '%s\n' "$wanted"
}

missing_packages() {
    local package
    for package in $(packages_here "$@"); do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
            "install ok installed") ;;
            *) printf '%s ' "$package" ;;
        esac
    done
}

# Install what is missing when that needs nobody's password; otherwise say the line to run, and go on:
# the commands that need something absent name it.
install_packages() {
    local missing root=
    command -v dpkg-query >/dev/null || { say "no dpkg here; install the counterparts of: $(packages_here "$@")"; return; }
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        root=sudo
        if ! sudo -n true 2>/dev/null; then
            say "to install what is missing, run as root:"
            say "  apt-get update && apt-get install --no-install-recommends $missing"
            return 0
        fi
    fi
    say "installing $missing"
    $root apt-get update -q || say "apt-get update failed; going on with the package lists that are here"
    # One by one where the whole does not install: a package that this release lacks must not keep the others out.
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing && return 0
    local package
    for package in $missing; do
        $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$package" \
            || say "could not install $package"
    done
}

# Images of containers tell dpkg to leave manuals out: then the package is installed and its pages are not there. They are
# unpacked into the cache, where whyerrno looks for them last.
unpack_manual() {
    local cache folder
    [ -e /usr/share/man/man2/bind.2.gz ] && return 0
    case ${XDG_CACHE_HOME:-} in /*) cache=$XDG_CACHE_HOME ;; *) cache=$HOME/.cache ;; esac
    cache=$cache/whyerrno/manual
    [ -e "$cache/usr/share/man/man2/bind.2.gz" ] && return 0
    command -v apt-get >/dev/null || return 0
    folder=$(mktemp -d) || return 0
    if (cd "$folder" && apt-get download -q manpages-dev && dpkg-deb -x manpages-dev_*.deb .) >&2; then
        mkdir -p "$cache/usr/share" && cp -R "$folder/usr/share/man" "$cache/usr/share/"
    else
        say "no manual pages here: \`whyerrno explain\` will say what is missing"
    fi
    rm -r "$folder"
}

# The newest Python of 3.11 or later.
find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            printf '%s\n' "$python"
            return
        fi
    done
    say "Python 3.11 or later is needed; install the packages python3 and python3-venv"
    return 5
}

# make_environment REQUIREMENTS EXTRA: .venv with the project in it, made once for a state of the two files.
make_environment() {
    local python stamp
    python=$(find_python) || return
    stamp="$2 $(cat pyproject.toml "$1" | cksum)"
    [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && return 0
    "$python" -m venv --clear .venv || { say "install the package python3-venv"; return 5; }
    .venv/bin/python -m pip install -q --disable-pip-version-check -c "$1" -e ".$2" || return
    printf '%s\n' "$stamp" > .venv/stamp
}
