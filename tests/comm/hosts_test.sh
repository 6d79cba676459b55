#!/usr/bin/env bash
# Two hosts, made of namespaces, with a slow link between them: the bytes of one rank's run, and the share of the time that
# communication took is said. Where the link is cut, every rank ends, and says whom it misses.
#
#   hosts_test.sh 4|6     over IPv4 alone, or between the hosts over IPv6 alone
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
family=$1
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
if ((family == 4)); then
  hosts=10.91.0.1:2,10.91.0.2:2
  net=(--mca btl_tcp_if_include 10.91.0.0/24 --mca oob_tcp_if_include 10.91.0.0/24)
else
  hosts=host1:2,host2:2 # mpirun takes the colons of an address for its own
  net=(--mca oob_tcp_disable_ipv6_family 0 --mca btl_tcp_disable_family 4)
fi
for n in 1 2; do
  if ((family == 4)); then
    ip netns exec $id-$n sysctl -qw net.ipv6.conf.all.disable_ipv6=1 || true
    ip -n $id-$n addr add 10.91.0.$n/24 dev wire
  else
    ip -n $id-$n addr add fd91::$n/64 dev wire nodad || skip "no IPv6 here"
  fi
  ip -n $id-$n link set wire up
  ip netns exec $id-$n tc qdisc add dev wire root tbf rate 20mbit burst 32kbit latency 200ms ||
    skip "no traffic shaping here"
done

# What mpirun takes for ssh: HOST COMMAND...
cat >"$work/agent" <<END
#!/usr/bin/env bash
host=\$1
shift
exec ip netns exec $id-\${host: -1} unshare --uts bash -c 'hostname host'\${host: -1}'; '"\$*"
END
chmod +x "$work/agent"
cd "$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
common=(--config config.yaml --set training.gradient_accumulation_steps=null --set training.global_batch_size=16
        --set training.eval_steps=null --set data.cache_dir="$work/data" --set parallel.timeout_seconds=5)
on_hosts() {
  ip netns exec $id-1 unshare --uts bash -c 'hostname host1; exec "$@"' bash \
    mpirun --host $hosts -np 4 --bind-to none --mca plm_rsh_agent "$work/agent" --mca btl self,tcp --mca pml ob1 \
    "${net[@]}" --mca odls_base_sigkill_timeout 1 \
    -x OMP_NUM_THREADS=1 "$LRD_PROGRAM" "${common[@]}" "$@"
}

in_family() { ip netns exec $id-1 "$LRD_BINARY_DIR/tests/comm/test_watch_link" >"$work/log" 2>&1 || fail "$(cat "$work/log")"; }
in_family
if ((family == 4)); then
  grep '1 addresses of IPv4, 0 of IPv6' "$work/log" || fail "$(cat "$work/log")"
else
  grep '0 addresses of IPv4, 1 of IPv6' "$work/log" || fail "$(cat "$work/log")"
  ip -n $id-1 addr del 127.0.0.1/8 dev lo # which mpirun cannot do without
  in_family
  ip -n $id-1 addr add 127.0.0.1/8 dev lo
fi

"$LRD_PROGRAM" "${common[@]}" --set training.output_dir="$work/one" 2>"$work/log" || fail "$(tail -3 "$work/log")"
on_hosts --set training.output_dir="$work/four" >"$work/log" 2>&1 </dev/null || fail "$(tail -20 "$work/log")"
cmp "$work/one/adapter_model.safetensors" "$work/four/adapter_model.safetensors" || fail "two hosts have other bytes"
! grep 'cannot connect' "$work/log" || fail "the ranks did not watch each other"
grep 'waited for each other' "$work/log" || fail "communication is not reported: $(tail -5 "$work/log")"

# The link is cut in the middle.
: >"$work/log" # what is waited for below is not that of the run before
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
grep -E '^error: rank [23] \(host2\)' "$work/log" || fail "nobody is named: $(tail -5 "$work/log")"
