#!/usr/bin/env bash
# A bundle, moved elsewhere, in a root folder that has bash, the C library and nothing else of this system: it runs there,
# and two ranks train the adapter that the program trains here, byte for byte.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
command -v patchelf >/dev/null || skip "no patchelf"
! ldd "$LRD_PROGRAM" | grep -q libasan || skip "a build with sanitizers is not for carrying about"
((EUID == 0)) || as_root=--map-root-user
unshare ${as_root:-} --mount true 2>/dev/null || skip "no namespace with mounts of its own is to be had here (unshare --mount)"
out=$(make_temporary)
remove_at_exit "$out"

bash "$LRD_SOURCE_DIR/launch/bundle.sh" --build "$LRD_BINARY_DIR" "$out/made" >"$out/bundle.log" || fail "$(cat "$out/bundle.log")"
cat "$out/bundle.log"
size=$(du -sm "$out/made" | cut -f1)
((size < 48)) || fail "$size MiB: too much to carry about"
! bash "$LRD_SOURCE_DIR/launch/bundle.sh" --build "$LRD_BINARY_DIR" "$out/made" 2>"$out/again.log" || fail "it wrote into a folder that was there"

# The bare system.
bare=$out/bare
mkdir -p "$bare"/{usr/bin,usr/lib,lib64,proc,sys,dev,tmp,opt,etc}
echo "root:x:0:0::/tmp:/bin/bash" >"$bare/etc/passwd" # Open MPI asks who runs it
ln -s usr/bin "$bare/bin"
ln -s usr/lib "$bare/lib"
tools=(bash env dirname)
for tool in "${tools[@]}"; do
    cp -L "$(command -v "$tool")" "$bare/usr/bin"
done
c_library=$(dirname "$(ldd "$(command -v bash)" | awk '$1 == "libc.so.6" {print $3}')")
for library in libc.so.6 libm.so.6 libmvec.so.1 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libutil.so.1; do
    [[ ! -e $c_library/$library ]] || cp -L "$c_library/$library" "$bare/usr/lib"
done
cp -L "$(ldd "$(command -v bash)" | awk '$1 ~ /^libtinfo/ {print $3}')" "$bare/usr/lib"
cp -L /lib64/ld-linux-x86-64.so.2 "$bare/lib64"
mv "$out/made" "$bare/opt/elsewhere"
there() { # COMMAND...: run in the bundle, in the bare system
    unshare ${as_root:-} --mount bash -c '
        for folder in proc sys dev; do mount --rbind "/$folder" "$1/$folder"; done
        exec env -i OMPI_MCA_rmaps_base_oversubscribe=1 OMP_WAIT_POLICY=passive \
            "$(command -v chroot)" "$1" /usr/bin/bash -c "cd /opt/elsewhere && ./run \"\$@\"" bash "${@:2}"' bash "$bare" "$@"
}
! there mpirun.openmpi --version 2>/dev/null || fail "the system's Open MPI is there"
there lora-dist info >"$out/info.txt" 2>"$out/log" || fail "info: $(cat "$out/log")"
grep -q "^backend cpu: " "$out/info.txt" || fail "info: $(cat "$out/info.txt")"

settings=(--config configs/almanac.yaml --threads 1 --set training.max_steps=4 --set training.eval_steps=null)
there mpirun -np 2 --bind-to none lora-dist "${settings[@]}" --set training.output_dir=/tmp/two 2>"$out/log" >&2 ||
    fail "two ranks: $(tail -5 "$out/log")"
cd "$LRD_SOURCE_DIR"
"$LRD_PROGRAM" "${settings[@]}" --set "training.output_dir=$out/one" 2>"$out/log" >&2 || fail "one rank here: $(tail -5 "$out/log")"
cmp "$out/one/adapter_model.safetensors" "$bare/tmp/two/adapter_model.safetensors" || fail "another adapter"
