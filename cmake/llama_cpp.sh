#!/usr/bin/env bash
# Builds llama.cpp for RESIDUA_LLAMA_CPP=ON, for the CPU it runs on, and installs it with the tools that
# benchmarks/llama_cpp.sh compares with: llama-quantize, llama-imatrix and llama-perplexity. About 8 minutes on two cores.
#
#   cmake/llama_cpp.sh [prefix]     installs to build/llama_cpp unless told otherwise; LLAMA_CPP_JOBS sets how many compile
#                                   at once, all cores by default
#
# The source comes from the package llama-cpp-python of PyPI, which carries it in vendor/llama.cpp. Needs cmake, a C++17
# compiler, pip and network, the last two not where the package's source lies in the folder of the build already.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.3.36

if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
    echo "usage: $0 [prefix]" >&2
    exit 2
fi
prefix=$(realpath -m "${1:-build/llama_cpp}")
work=$prefix.build
jobs=${LLAMA_CPP_JOBS:-$(nproc)}
say() { echo "llama_cpp: $*"; }

if [ -e "$prefix/lib/cmake/llama/llama-config.cmake" ]; then
    say "$prefix has an installed llama.cpp; remove it to build another"
    exit 0
fi

mkdir -p "$work"
package=$work/llama_cpp_python-$version.tar.gz
if [ ! -e "$package" ]; then
    say "pip download llama-cpp-python $version"
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$work" "llama-cpp-python==$version"
fi
source=$work/llama_cpp_python-$version/vendor/llama.cpp
[ -e "$source/CMakeLists.txt" ] || tar xzf "$package" -C "$work"

configure() {
    cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_INSTALL_RPATH='$ORIGIN/../lib;$ORIGIN' -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
        -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_TOOLS_INSTALL=OFF "$@" > "$work/configure.log" 2>&1 ||
        { cat "$work/configure.log" >&2; exit 1; }
}

# Only three tools of many are built, and what is not built cannot be installed: they are copied, and the configuration
# without tools installs the libraries.
tools=(llama-quantize llama-imatrix llama-perplexity)
say "build with $jobs jobs"
configure -DLLAMA_BUILD_TOOLS=ON
cmake --build "$work/build" --parallel "$jobs" --target "${tools[@]}" > "$work/build.log" 2>&1 ||
    { tail -n 50 "$work/build.log" >&2; exit 1; }
configure -DLLAMA_BUILD_TOOLS=OFF
cmake --install "$work/build" > /dev/null
mkdir -p "$prefix/bin"
for tool in "${tools[@]}"; do
    cp "$work/build/bin/$tool" "$prefix/bin/"
    for library in "$work/build/bin/lib$tool"-impl.*; do
        [ ! -e "$library" ] || cp -P "$library" "$prefix/lib/"
    done
done
say "installed to $prefix: configure with -DRESIDUA_LLAMA_CPP=ON -DCMAKE_PREFIX_PATH=$prefix"
