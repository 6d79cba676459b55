#!/usr/bin/env bash
# Makes a folder that carries the program to a machine that can install nothing: x86-64 Linux with a glibc at least as new
# as this machine's. For its GPUs that one has the driver, and CUDA's libraries in a toolkit or in the nvidia-* wheels of the
# python3 on PATH. The folder may be moved; it serves the ranks of one machine.
#
#   launch/bundle.sh [--build FOLDER] [--tests] [--with-cuda] OUT
#
#   --build FOLDER  what to carry; unless given, build/cuda-release where that is, else build/cpu-release
#   --tests         what launch/gpu_check.sh runs, instead of the example
#   --with-cuda     also the CUDA libraries that the plugin needs: hundreds of megabytes
#
# There:  OUT/run lora-dist info      OUT/run bash OUT/examples/almanac/run.sh      OUT/run bash OUT/launch/gpu_check.sh REPORT
#
# Needs patchelf. OUT must not exist; it appears when it is complete.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=
tests=false
with_cuda=false
while [[ ${1:-} == -* ]]; do
    case $1 in
    --build)
        build=$(cd "${2:?"--build needs a folder"}" && pwd)
        shift
        ;;
    --tests) tests=true ;;
    --with-cuda) with_cuda=true ;;
    -h | --help)
        sed -n '2,15s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "bundle.sh: unknown option $1 (--build, --tests, --with-cuda)" >&2
        exit 2
        ;;
    esac
    shift
done
out=${1:?"needs the name of the folder to make"}
if [[ -z $build ]]; then
    build=$root/build/cuda-release
    [[ -x $build/src/app/lora-dist ]] || build=$root/build/cpu-release
fi
[[ ! -e $out ]] || { echo "bundle.sh: $out exists already" >&2; exit 2; }
[[ -x $build/src/app/lora-dist ]] || { echo "bundle.sh: no program in $build: launch/setup.sh builds it" >&2; exit 1; }
for tool in patchelf ompi_info cmake; do
    command -v "$tool" >/dev/null || { echo "bundle.sh: no $tool here: apt-get install patchelf openmpi-bin cmake" >&2; exit 1; }
done
made=$out.partial
trap 'rm -rf "$made"' EXIT
rm -rf "$made"
mkdir -p "$made"/{bin,lib/openmpi,lib/pmix,share/openmpi,share/pmix,etc}

# The program, the plugin, configs; laid out as the repository is, so that scripts find things.
cmake --install "$build" --prefix "$made/installed" --strip >/dev/null
mv "$made"/installed/bin/* "$made/bin"
[[ ! -d $made/installed/lib ]] || mv "$made"/installed/lib/* "$made/lib"
rm -r "$made/installed"
install "$root/launch/bundle_run.sh" "$made/run"
cp -r "$root"/{README.md,LICENSE,configs,docs} "$made"
mkdir "$made/launch"
cp "$root/launch/ranks.sh" "$made/launch"
if ! $tests; then
    mkdir "$made/examples"
    cp -r "$root/examples/almanac" "$made/examples"
else
    mkdir "$made/bench"
    cp "$root/bench/gpu_compare.py" "$made/bench"
    cp "$root/launch/gpu_check.sh" "$made/launch"
    while IFS= read -r program; do
        install -s "$program" "$made/bin"
    done < <(find "$build" -type f -perm -u+x \( -path '*/tests/*' -name 'test_ops_*' -o -name test_golden -o -name test_streams -o \
        -name test_graphs -o -name test_company -o -name test_reduce -o -name test_devcomm -o -name op_speed \))
    mkdir -p "$made/tests/golden/runs"
    cp "$root/tests/golden/runs/spread.json" "$made/tests/golden/runs"
    for case in post-layernorm all-linear qkv head80 head128-untied; do
        for folder in "$root/tests/golden/runs/$case" "$root/../shared/golden/$case"; do
            [[ ! -f $folder/expected.json || -d $made/tests/golden/runs/$case ]] || cp -r "$folder" "$made/tests/golden/runs/$case"
        done
    done
fi

# Open MPI; its plugins, but for those of fabrics (whose libraries belong to the machine that has one), of files and of
# OpenSHMEM; PMIx's.
cp -L "$(command -v orterun)" "$made/bin/mpirun"
path_of() { ompi_info --parsable --path "$1" | cut -d: -f3; }
plugins=$(path_of pkglibdir)
cp "$plugins"/mca_*.so "$made/lib/openmpi"
rm -f "$made"/lib/openmpi/mca_*_{ucx,ofi,openib,psm,psm2,usnic,portals4,ucc,hcoll,knem}.so \
    "$made"/lib/openmpi/mca_{io,fs,fbtl,fcoll,sharedfp,atomic,memheap,scoll,spml,sshmem}_*.so
cp "$(path_of pkgdatadir)"/help-*.txt "$made/share/openmpi"
pmix=$(ldd "$plugins/mca_pmix_ext3x.so" | awk '$1 ~ /^libpmix/ {print $3}')
pmix=$(dirname "$(realpath "$pmix")")
cp "$pmix"/pmix/*.so "$made/lib/pmix"
cp "$pmix"/../share/pmix/help-*.txt "$made/share/pmix"

# What all of these need, but for the C library's own and the driver's.
system='^(ld-linux|libc|libm|libmvec|libdl|librt|libpthread|libresolv|libutil|libnsl|libanl|libcuda|libnvidia.*)[-.]'
cuda='^lib(cublas|cublasLt|cudart|nccl|nvrtc|nvJitLink)\.so'
shopt -s nullglob # there may be no plugin
ldd "$made"/bin/* "$made"/lib/*.so "$made"/lib/*/*.so | awk '$2 == "=>" {print $1, $3}' | sort -u >"$made/needed"
while read -r name path; do
    if [[ $name =~ $cuda ]] && ! $with_cuda; then
        echo "$name" >>"$made/lib/cuda-libraries"
    elif [[ ! $name =~ $system ]]; then
        [[ $path == /* ]] || { echo "bundle.sh: $name is not on this machine" >&2; exit 1; }
        cp -L "$path" "$made/lib/$name"
    fi
done <"$made/needed"
rm "$made/needed"

# Libraries are found from where a file lies. As DT_RPATH, which LD_LIBRARY_PATH does not come before.
chmod -R u+w "$made"
strip --strip-unneeded "$made"/lib/*.so* "$made"/lib/*/*.so
patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$made"/bin/*
patchelf --force-rpath --set-rpath '$ORIGIN' "$made"/lib/*.so*
patchelf --force-rpath --set-rpath '$ORIGIN/..' "$made"/lib/*/*.so
mv "$made" "$out"
trap - EXIT
glibc=$(getconf GNU_LIBC_VERSION)
echo "$out: $(du -sm "$out" | cut -f1) MiB, for x86-64 with $glibc or later"
[[ ! -s $out/lib/cuda-libraries ]] || echo "CUDA's libraries are not in it: $(xargs <"$out/lib/cuda-libraries")"
