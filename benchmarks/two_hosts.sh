#!/usr/bin/env bash
# Trains on two "hosts": two network namespaces of this machine, connected by a virtual cable only. torchrun runs on both
# and connects to the first. Both use the same run folder. Then it trains with one process, and compares the weights.
# It needs root, iproute2 and a kernel that allows namespaces.
#
#     sudo benchmarks/two_hosts.sh                  PYTHON=... chooses the interpreter; more arguments go to train.py
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 WANDB_MODE=offline
name=vaelab$$
folder=$(mktemp -d)

clean() {
    # Ends only the processes of these namespaces.
    for host in "$name-a" "$name-b"; do
        if ip netns list | grep -q "^$host\b"; then
            ip netns pids "$host" | xargs -r kill 2>/dev/null || true
            ip netns del "$host" || true
        fi
    done
    rm -rf "$folder"
}
trap clean EXIT

if ! ip netns add "$name-a" 2>"$folder/refused"; then
    echo "network namespaces are not allowed here: $(cat "$folder/refused")" >&2
    exit 77 # skipped
fi
ip netns add "$name-b"
ip link add "va$$" netns "$name-a" type veth peer name "vb$$" netns "$name-b"
ip -n "$name-a" addr add 10.77.0.1/24 dev "va$$"
ip -n "$name-b" addr add 10.77.0.2/24 dev "vb$$"
for host in a b; do
    ip -n "$name-$host" link set lo up
    ip -n "$name-$host" link set "v$host$$" up
done

typed=(model=mlp data.limit=500 trainer.max_epochs=2 logger=csv callbacks=none data.binarize=dynamic "$@")
on() { # runs torchrun on a host: its letter and its number
    GLOO_SOCKET_IFNAME="v$1$$" ip netns exec "$name-$1" "$PYTHON" -m torch.distributed.run --nnodes=2 --nproc_per_node=1 \
        --rdzv_backend=c10d --rdzv_endpoint=10.77.0.1:29400 --rdzv_id=two --local_addr="10.77.0.$2" \
        --rdzv_conf="is_host=$((2 - $2)),timeout=120" \
        src/train.py "${typed[@]}" accelerator=ddp_cpu trainer.devices=1 trainer.num_nodes=2 hydra.run.dir="$folder/two"
}
on b 2 >"$folder/b.log" 2>&1 &
second=$!
on a 1
wait "$second" || { cat "$folder/b.log" >&2; exit 1; }
echo "through the cable, bytes sent by each host:" \
    "$(ip netns exec "$name-a" cat "/sys/class/net/va$$/statistics/tx_bytes")" \
    "$(ip netns exec "$name-b" cat "/sys/class/net/vb$$/statistics/tx_bytes")"

"$PYTHON" src/train.py "${typed[@]}" accelerator=cpu hydra.run.dir="$folder/one" >"$folder/one.log"
"$PYTHON" - "$folder" <<'PYTHON'
import sys
import torch

one, two = (torch.load(f"{sys.argv[1]}/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("one", "two"))
difference = max(float((one[name] - two[name]).abs().max()) for name in one)
print(f"largest difference of a weight from a training by one process: {difference:.1e}")
sys.exit(difference > 1e-4)
PYTHON
