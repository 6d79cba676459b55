#!/usr/bin/env bash
# Installs the Debian packages that are missing, configures and builds.
#
#   launch/setup.sh [--tests] [--cuda] [--no-build]
#
#   --tests     the tests, too, and what only they and the checks use
#   --cuda      configure with -DLRD_CUDA=ON where nvcc is found (the CUDA toolkit itself is never installed)
#   --no-build  stop after the packages
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-dev libyaml-dev
    libjansson-dev libonig-dev libssl-dev libcurl4-openssl-dev libsnappy-dev libzstd-dev ca-certificates zlib1g-dev)
test_packages=(libcmocka-dev hdf5-tools clang libclang-rt-dev clang-format clang-tidy python3 python3-venv slurm-wlm munge patchelf procps
    iproute2)
preset=cpu-release
build=true
tests=false
cuda=false
for option in "$@"; do
    case $option in
    --tests) tests=true packages+=("${test_packages[@]}") ;;
    --cuda) cuda=true ;;
    --no-build) build=false ;;
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "setup.sh: unknown option $option (--tests, --cuda, --no-build)" >&2
        exit 2
        ;;
    esac
done

missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [[ $state == installed ]] || missing+=("$package")
    done
else
    echo "setup.sh: no dpkg here: not a Debian system. Needed, by their Debian names: ${packages[*]}" >&2
fi
if ((${#missing[@]} > 0)); then
    as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || {
            echo "setup.sh: not root and no sudo. As root: apt-get install ${missing[*]}" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    echo "Installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq </dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" </dev/null
fi
$build || exit 0

options=()
if $cuda; then
    nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc || true)
    if [[ -n $nvcc ]]; then
        options+=(-DLRD_CUDA=ON "-DCMAKE_CUDA_COMPILER=$nvcc")
        preset=cuda-release
    else
        echo "setup.sh: no nvcc on PATH or in /usr/local/cuda/bin: building for the CPU only"
    fi
fi
# A folder that was set up for tests stays so.
if $tests; then
    options+=(-DBUILD_TESTING=ON)
elif [[ ! -f build/$preset/CMakeCache.txt ]]; then
    options+=(-DBUILD_TESTING=OFF)
fi
cmake --preset "$preset" "${options[@]}" </dev/null
cmake --build --preset "$preset" </dev/null
echo
echo "The program is $PWD/build/$preset/src/app/lora-dist"
