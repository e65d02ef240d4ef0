#!/usr/bin/env bash
# Installs what residua's build, tests and examples need and this machine lacks: Debian 12, Ubuntu 22.04 or newer.
#
#   cmake/setup.sh           compiler, CMake, Ninja and libraries
#   cmake/setup.sh --ci      and clang, clang-format, their runtimes and Python's venv
#   cmake/setup.sh --mpi     and Open MPI, for RESIDUA_MPI
#   cmake/setup.sh --onednn  and oneDNN, for RESIDUA_ONEDNN
set -euo pipefail

ci=false
mpi=false
onednn=false
for option in "$@"; do
    case "$option" in
        --ci) ci=true ;;
        --mpi) mpi=true ;;
        --onednn) onednn=true ;;
        *) echo "usage: $0 [--ci] [--mpi] [--onednn]" >&2; exit 2 ;;
    esac
done

say() { echo "setup: $*"; }
have() { command -v "$1" > /dev/null; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]; }
available() { LC_ALL=C apt-cache policy "$1" | grep 'Candidate: [^(]' > /dev/null; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }  # needed, found

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

good_cmake() { have cmake && at_least 3.25 "$(cmake --version | sed -n 's/^cmake version //p')"; }
have_clang_runtime() {
    have clang++ && compgen -G "$(clang++ -print-resource-dir)/lib/*/libclang_rt.asan*" > /dev/null
}
good_gxx() { have g++ && at_least 12 "$(g++ -dumpversion)"; }

install() {
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# Each entry lists alternatives, the best one first.
missing=()
good_gxx || have g++-12 || missing+=("g++")
good_cmake || missing+=("cmake")
have ninja || missing+=("ninja-build")
have git || missing+=("git")

# A header that is there already may come from elsewhere than a package.
need_header() {
    local header=$1 prefix
    shift
    for prefix in /usr/local/include /usr/include; do
        [ ! -e "$prefix/$header" ] || return 0
    done
    missing+=("$*")
}
need_header eigen3/Eigen/Core libeigen3-dev
need_header nlohmann/json.hpp nlohmann-json3-dev
need_header CLI/CLI.hpp libcli11-dev cli11
need_header benchmark/benchmark.h libbenchmark-dev
[ -e /usr/include/catch2/catch.hpp ] || need_header catch2/catch_all.hpp catch2

if $mpi; then
    have mpicxx || missing+=("libopenmpi-dev")
    have mpirun || missing+=("openmpi-bin")
fi

if $onednn; then
    need_header oneapi/dnnl/dnnl.hpp libdnnl-dev
fi

if $ci; then
    have clang++ || missing+=("clang")
    have clang-format || missing+=("clang-format")
    python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=("python3-venv")
    if have apt-get; then
        installed libomp-dev || missing+=("libomp-dev")
        # Ubuntu 22.04 has no such package: there clang brings its sanitizers along.
        have_clang_runtime || missing+=("libclang-rt-dev libclang-rt-18-dev libclang-rt-14-dev clang")
    fi
fi

if [ ${#missing[@]} = 0 ]; then
    say "all there, nothing to install"
    exit 0
fi

if ! have apt-get || { [ "$(id -u)" != 0 ] && ! have sudo; }; then
    say "cannot install without apt-get and root or sudo; please install:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
fi

say "apt-get update"
as_root apt-get update -qq

packages=()
for alternatives in "${missing[@]}"; do
    for package in $alternatives; do
        if available "$package"; then
            packages+=("$package")
            continue 2
        fi
    done
    say "no package of these is available: $alternatives" >&2
    exit 1
done

install "${packages[@]}"

# Ubuntu 22.04's own g++ and CMake are too old, and both have a way around.
if ! good_gxx; then
    have g++-12 || install g++-12
    say "the default g++ is older than 12: export CXX=g++-12 before you configure"
fi
if ! good_cmake; then
    have pip3 || install python3-pip
    say "CMake is older than 3.25: pip3 install cmake"
    as_root pip3 install -q 'cmake>=3.25'
fi
say "done"
