#!/usr/bin/env bash
# Two hosts, made of namespaces, with a slow link between them: the bytes of one rank's run, and the share of the time that
# communication took is said. Where the link is cut, every rank ends, and says whom it misses.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
((EUID == 0)) || skip "network namespaces need root"
command -v ip >/dev/null && command -v tc >/dev/null || skip "no ip or tc here (Debian: iproute2)"
work=$(make_temporary)
id=lrd$$
leave() {
  ip netns pids $id-1 2>/dev/null | xargs -r kill -9 2>/dev/null || true
  ip netns pids $id-2 2>/dev/null | xargs -r kill -9 2>/dev/null || true
  ip netns del $id-1 2>/dev/null || true
  ip netns del $id-2 2>/dev/null || true
  rm -rf "$work"
}
trap leave EXIT
for n in 1 2; do
  ip netns add $id-$n 2>/dev/null || skip "no network namespaces here"
  ip -n $id-$n link set lo up
done
ip -n $id-1 link add wire type veth peer name wire netns $id-2 || skip "no virtual network devices here"
for n in 1 2; do
  ip -n $id-$n addr add 10.91.0.$n/24 dev wire
  ip -n $id-$n link set wire up
  ip netns exec $id-$n tc qdisc add dev wire root tbf rate 20mbit burst 32kbit latency 200ms ||
    skip "no traffic shaping here"
done

# What mpirun takes for ssh: HOST COMMAND...
cat >"$work/agent" <<END
#!/usr/bin/env bash
host=\$1
shift
exec ip netns exec $id-\${host##*.} unshare --uts bash -c 'hostname host'\${host##*.}'; '"\$*"
END
chmod +x "$work/agent"
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
common=(--config config.yaml --set training.gradient_accumulation_steps=null --set training.global_batch_size=16
        --set training.eval_steps=null --set data.cache_dir="$work/data" --set parallel.timeout_seconds=5)
on_hosts() {
  ip netns exec $id-1 unshare --uts bash -c 'hostname host1; exec "$@"' bash \
    mpirun --host 10.91.0.1:2,10.91.0.2:2 -np 4 --bind-to none --mca plm_rsh_agent "$work/agent" --mca btl self,tcp --mca pml ob1 \
    --mca btl_tcp_if_include 10.91.0.0/24 --mca oob_tcp_if_include 10.91.0.0/24 --mca odls_base_sigkill_timeout 1 \
    -x OMP_NUM_THREADS=1 "$LRD_PROGRAM" "${common[@]}" "$@"
}

"$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/one" 2>"$work/log" || fail "$(tail -3 "$work/log")"
on_hosts --set training.output_dir="$work/four" >"$work/log" 2>&1 </dev/null || fail "$(tail -20 "$work/log")"
cmp "$work/one/adapter_model.safetensors" "$work/four/adapter_model.safetensors" || fail "two hosts have other bytes"
grep 'waited for each other' "$work/log" || fail "communication is not reported: $(tail -5 "$work/log")"

# The link is cut in the middle.
on_hosts --set training.output_dir="$work/cut" --set training.max_steps=100000 >"$work/log" 2>&1 </dev/null &
job=$!
for ((i = 0; i < 600; i++)); do
  ! grep -q '^update 5/' "$work/log" || break
  sleep 0.1
done
grep -q '^update 5/' "$work/log" || fail "no work was done: $(tail "$work/log")"
ip -n $id-1 link set wire down
begun=$SECONDS
while (($(ip netns pids $id-1 | xargs -r ps -o comm= -p | grep -c lora-dist) + $(ip netns pids $id-2 | xargs -r ps -o comm= -p | grep -c lora-dist) > 0)); do
  ((SECONDS - begun < 20)) || fail "ranks are still there: $(tail -5 "$work/log")"
  sleep 0.2
done
echo "all ranks have ended $((SECONDS - begun)) s after the link was cut"
grep -E 'error: rank [0-9] \(.*(host[12]).*' "$work/log" || fail "nobody is named: $(tail -5 "$work/log")"
