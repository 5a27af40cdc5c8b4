#!/bin/sh
# Sees that this machine has what `make` needs, and installs what is missing where it may
# (as root on a Debian-like system): a C linker, cargo-nextest, a container engine that answers.
#
#   scripts/setup.sh              all of it
#   scripts/setup.sh --no-tests   without cargo-nextest, which only the tests need
#
# One line for each; exit 0 when all is there, 3 when a person must do something: the last line
# then says what to run. Where the engine is not on its usual socket, its address is left in
# target/lockproof.env for make. May be run any number of times.
set -eu
cd "$(dirname "$0")/.."

# The version that .config/nextest.toml needs, and the one that is built where there is none.
NEXTEST_REQUIRED=0.9.100
NEXTEST_VERSION=0.9.143
ENV_FILE=target/lockproof.env
DOCKER_SOCKET=/var/run/docker.sock
DOCKER_LOG=/var/log/docker.log

# A user who is not root may lack these, and dockerd lives there.
PATH=$PATH:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin:$PWD/target/tools/bin
runtime_dir=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}

say() { printf 'setup: %s\n' "$*" >&2; }

# stop REASON LINE: gives up, with the line that the person must run.
stop() {
    say "$1"
    printf 'setup: run this, then try again:\n\n    %s\n\n' "$2" >&2
    exit 3
}

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
may_install() { is_root && have apt-get; }

# line_for DEBIAN-NAMES OTHER-NAMES: how this machine's packages are installed.
line_for() {
    is_root && sudo= || sudo='sudo '
    if have apt-get; then
        echo "${sudo}apt-get update && ${sudo}apt-get install -y $1"
    elif have dnf; then
        echo "${sudo}dnf install -y $2"
    elif have zypper; then
        echo "${sudo}zypper install -y $2"
    elif have pacman; then
        echo "${sudo}pacman -S $2"
    else
        echo "install $2 with this system's package manager"
    fi
}

# add PACKAGE...: installs Debian packages, or shows why it could not.
add() {
    say "installing $* with apt-get"
    mkdir -p target
    if ! {
        apt-get -q -o DPkg::Lock::Timeout=300 update &&
            DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q \
                -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
    } </dev/null >target/apt.log 2>&1; then
        tail -n 12 target/apt.log >&2
        stop "apt-get could not install $*; all that it said is in target/apt.log" \
            "$(line_for "$*" "$*")"
    fi
}

# ---- Rust and its linker -----------------------------------------------------------------------

need_cargo() {
    if have cargo; then
        return
    elif have rustup; then
        stop "there is no Rust toolchain" "rustup default stable"
    elif have apt-cache && apt-cache show rustup >/dev/null 2>&1; then
        stop "there is no Rust" "$(line_for rustup rustup) && rustup default stable"
    else
        stop "there is no Rust; lockproof is built with version 1.95 or newer" \
            "rustup default stable    # after installing rustup as the Rust project tells"
    fi
}

need_linker() {
    if have cc; then
        say "linker: $(command -v cc)"
        return
    fi
    may_install || stop "there is no C compiler (cc), which Rust links with" \
        "$(line_for 'gcc libc6-dev' gcc)"
    add gcc libc6-dev
}

# ---- cargo-nextest -------------------------------------------------------------------------

need_nextest() {
    version=$(cargo nextest --version 2>/dev/null | sed -n '1s/^cargo-nextest \([^ ]*\).*/\1/p')
    if [ "$(printf '%s\n' "$NEXTEST_REQUIRED" "${version:-0}" | sort -V | head -n 1)" = "$NEXTEST_REQUIRED" ]; then
        say "tests: cargo-nextest $version"
        return
    fi
    home=${CARGO_HOME:-${HOME:-/}/.cargo}
    set -- cargo install --locked cargo-nextest --version "$NEXTEST_VERSION"
    if ! mkdir -p "$home/bin" 2>/dev/null || [ ! -w "$home/bin" ]; then
        set -- "$@" --root target/tools
    fi
    say "cargo-nextest ${version:-is not there}${version:+ is too old}: building it with \`$*\`, some minutes, this once"
    # It waits for tests: fast code is not worth twice the time that its optimisation takes.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        "$@" --quiet </dev/null >&2 || stop "cargo-nextest could not be built" "$*"
}

# ---- container engine ----------------------------------------------------------------------

# fetch ADDRESS PATH: GET from an engine's API, to standard output. Debian has perl always, curl
# often.
fetch() {
    case $1 in
        unix://*) set -- "${1#unix://}" "http://localhost$2" "$2" ;;
        tcp://*)
            [ -z "${DOCKER_TLS_VERIFY:-}" ] || {
                certificates=${DOCKER_CERT_PATH:-$HOME/.docker}
                curl -fsS --max-time 5 --cacert "$certificates/ca.pem" \
                    --cert "$certificates/cert.pem" --key "$certificates/key.pem" \
                    "https://${1#tcp://}$2" 2>/dev/null
                return
            }
            set -- '' "http://${1#tcp://}$2"
            ;;
        http://* | https://*) set -- '' "$1$2" ;;
        *) return 1 ;;
    esac
    if [ -z "$1" ]; then
        curl -fsS --max-time 5 "$2" 2>/dev/null
    elif have curl; then
        curl -fsS --max-time 5 --unix-socket "$1" "$2" 2>/dev/null
    else
        perl -MIO::Socket::UNIX -e '
            alarm 5;
            my $engine = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
            print $engine "GET $ARGV[1] HTTP/1.0\r\nHost: localhost\r\n\r\n";
            my ($head, $body) = split /\r\n\r\n/, join("", <$engine>), 2;
            exit 1 unless $head =~ m{^HTTP/1\.\d 200};
            print $body;' "$1" "$3" 2>/dev/null
    fi
}

answers() { fetch "$1" /_ping >/dev/null; }

# wait_for ADDRESS SECONDS
wait_for() {
    for _ in $(seq "$2"); do
        answers "$1" && return
        sleep 1
    done
    answers "$1"
}

# The first socket that answers.
find_engine() {
    for socket in "$DOCKER_SOCKET" "$runtime_dir/docker.sock" \
        /run/podman/podman.sock "$runtime_dir/podman/podman.sock"; do
        if [ -S "$socket" ] && answers "unix://$socket"; then
            echo "unix://$socket"
            return
        fi
    done
    return 1
}

# in_background LOG COMMAND...: outlives this script and the terminal.
in_background() {
    log=$1
    shift
    setsid nohup "$@" </dev/null >>"$log" 2>&1 &
}

# Starts dockerd by the system's own means first, then by hand, each time around what stopped it
# the last time. No configuration of the machine is written.
start_docker() {
    if [ -d /run/systemd/system ]; then
        say "starting Docker: systemctl start docker"
        systemctl start docker </dev/null >&2 || true
        wait_for "unix://$DOCKER_SOCKET" 30 && return
        stop "Docker does not start" "journalctl -u docker.service -n 50"
    fi
    if [ -x /etc/init.d/docker ]; then
        # It also mounts the control groups, which nobody else does without systemd.
        say "starting Docker: service docker start"
        if service docker start </dev/null >/dev/null 2>&1; then
            wait_for "unix://$DOCKER_SOCKET" 15 && return
        fi
    fi
    driver='' filter=''
    while :; do
        said=$({ wc -c <"$DOCKER_LOG"; } 2>/dev/null || echo 0)
        say "starting Docker: dockerd${driver:+ $driver}${filter:+ $filter}"
        # shellcheck disable=SC2086 # no option, no word
        in_background "$DOCKER_LOG" dockerd $driver $filter
        # While it lives there is hope; once it is dead its last words say why.
        for _ in $(seq 30); do
            answers "unix://$DOCKER_SOCKET" && return
            sleep 1
            kill -0 "$!" 2>/dev/null || break
        done
        kill "$!" 2>/dev/null || true
        words=$(tail -c "+$((said + 1))" "$DOCKER_LOG" | tail -n 8)
        reason=$(echo "$words" | grep 'failed to start daemon' | tail -n 1)
        case $driver:$filter:$reason in
            :*graphdriver* | :*'storage driver'*)
                have fuse-overlayfs || ! have apt-get || add fuse-overlayfs
                driver=--storage-driver=fuse-overlayfs ;;
            *=fuse-overlayfs:*graphdriver* | *=fuse-overlayfs:*'storage driver'*)
                driver=--storage-driver=vfs ;;
            *::*iptables*) filter='--iptables=false --ip6tables=false' ;;
            *) break ;;
        esac
        say "${reason#*failed to start daemon: }"
    done
    echo "$words" >&2
    stop "Docker does not start; the end of $DOCKER_LOG is above" "dockerd --debug"
}

# Podman serves Docker's API on a socket that is off until somebody asks for it.
start_podman() {
    if is_root; then
        socket=/run/podman/podman.sock scope=
    else
        socket=$runtime_dir/podman/podman.sock scope=--user
    fi
    say "starting Podman's socket: $socket"
    # shellcheck disable=SC2086 # no scope, no word
    if ! { [ -d /run/systemd/system ] && systemctl $scope start podman.socket </dev/null >&2; }; then
        mkdir -p "${socket%/*}" target
        in_background target/podman.log podman system service --time=0 "unix://$socket"
    fi
    wait_for "unix://$socket" 20 || stop "Podman does not answer on $socket" \
        "podman system service --time=0 unix://$socket"
}

# Starts an engine that is installed, or installs one.
start_engine() {
    if [ -S "$DOCKER_SOCKET" ] && [ ! -w "$DOCKER_SOCKET" ]; then
        stop "Docker is there, but this user may not use $DOCKER_SOCKET" \
            "sudo usermod -aG docker $(id -un)    # and log in again"
    elif have dockerd; then
        is_root || stop "Docker is installed but does not run" "sudo service docker start"
        start_docker
    elif have podman; then
        start_podman
    elif may_install; then
        say "there is no container engine"
        # Without its parser, a kernel with AppArmor refuses every container.
        if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
            add docker.io apparmor
        else
            add docker.io
        fi
        wait_for "unix://$DOCKER_SOCKET" 3 || start_docker
    else
        stop "there is no container engine" "$(line_for docker.io podman)"
    fi
    engine=$(find_engine) || stop "the engine was started but does not answer" "docker info"
}

need_engine() {
    rm -f "$ENV_FILE"
    if [ -n "${DOCKER_HOST:-}" ]; then
        case $DOCKER_HOST in
            unix://*) ;;
            ssh://*) stop "DOCKER_HOST=$DOCKER_HOST is another machine; lockproof needs an engine on this one" \
                "unset DOCKER_HOST" ;;
            *) have curl || stop "curl is needed to ask DOCKER_HOST=$DOCKER_HOST" "$(line_for curl curl)" ;;
        esac
        answers "$DOCKER_HOST" || stop "no engine answers at DOCKER_HOST=$DOCKER_HOST" \
            "unset DOCKER_HOST    # or start that engine"
        say "engine: $DOCKER_HOST (DOCKER_HOST)"
        return
    fi
    engine=$(find_engine) || start_engine
    if [ "$engine" != "unix://$DOCKER_SOCKET" ]; then
        mkdir -p target
        echo "DOCKER_HOST=$engine" >"$ENV_FILE"
    fi
    say "engine: $engine"
    case $(fetch "$engine" /info) in
        *'"Driver":"vfs"'*) say "note: its storage driver is vfs: every container is a full copy; expect slow runs" ;;
    esac
}

# What single tests compare with. Elsewhere such a test says that its tool is missing; in CI it fails.
need_tools() {
    if have docker-compose || docker compose version >/dev/null 2>&1; then
        say "tests: Docker Compose is installed"
    elif may_install; then
        add docker-compose
    fi
    if python3 -c 'import dotenv' 2>/dev/null; then
        say "tests: python-dotenv is installed"
    elif ! python3 -m pip install --quiet python-dotenv </dev/null >/dev/null 2>&1 && may_install; then
        add python3-dotenv
    fi
}

need_cargo
need_linker
[ "${1:-}" = --no-tests ] || need_nextest
need_engine
if [ "${1:-}" != --no-tests ] && [ -n "${CI:-}" ]; then
    need_tools
fi
