#!/usr/bin/env bash
# All evidence from a GPU in under 10 minutes: correctness on the device (models and Triton kernels), the published
# table, resolution scaling, the heat operator beside attention, ours against the official formulation, and the time
# that effective receptive fields take.
# Writes run files, the environment and the report into one folder, to be committed.
#
#   scripts/gpu_evidence.sh [--device cuda|cpu] [--out results/h200]
#
# --device cpu runs the same steps with tiny models, to see that the script works where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

device=cuda
out=
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=${2:?--device needs a value}; shift 2 ;;
    --out) out=${2:?--out needs a value}; shift 2 ;;
    *) echo "gpu_evidence: unknown argument '$1': --device cuda|cpu, --out FOLDER" >&2; exit 2 ;;
  esac
done
case "$device" in
  cuda) out=${out:-results/h200} ;;
  cpu) out=${out:-$(mktemp -d)} ;;
  *) echo "gpu_evidence: --device is cuda or cpu, not '$device'" >&2; exit 2 ;;
esac
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "$out"

step() { echo "== $* ($(date +%T))"; }
# exit code 6: some cases failed; the records say which, and the rest is evidence all the same
measure() { "$python" -m vheatbench run --device "$device" --out "$out" --quiet "$@" >/dev/null || [ $? -eq 6 ]; }

step environment
"$python" -m vheatbench env --json >"$out/environment.json"

step correctness on the device
"$python" -m pytest -q -p no:cacheprovider tests/test_gpu.py --device "$device" | tee "$out/correctness.txt"

if [ "$device" = cuda ]; then
  step published table
  measure --suite paper-table --dtype bfloat16 --memory-format contiguous
  step resolution scaling
  measure --suite resolution-scaling --rounds 1 --resolution 224,512,1024 --timeout 60
  step operators
  measure --suite operator-scaling --model op/heat,op/heat-official,op/heat-matmul,op/attention,op/window-attention \
    --ceilings --grid 14,56,128 --channels 96 --part core --mode infer --timeout 60
  step official formulation, eager and compiled
  measure --suite deploy --model vheat-t,vheat-t-official,vheat-b,vheat-b-official --resolution 224,768 \
    --mode infer --dtype bfloat16 --rounds 1 --timeout 120
  step small batches and CUDA graphs
  measure --suite deploy --model vheat-t,vheat-t-official --resolution 224 --batch 1 --mode infer --dtype bfloat16 \
    --compile false,true,cudagraphs --rounds 1 --timeout 120
  step effective receptive field
  "$python" -m vheatbench erf --model vheat-t --compare swin-t,deit-s --resolution 224,512 --device cuda --results "$out" --out "$out/erf"
else
  step published table, tiny
  measure --suite paper-table --model test_vheat
  step resolution scaling, tiny
  measure --suite resolution-scaling --model test_vheat,test_vit --resolution 64,96,128
  step operators, tiny
  measure --suite operator-scaling --model op/heat,op/attention --ceilings --grid 7,14 --part core --mode infer
  step official formulation, tiny
  measure --suite deploy --model test_vheat,test_vheat_official --resolution 64 --mode infer --compile false --rounds 1
  step effective receptive field, tiny
  "$python" -m vheatbench erf --model test_vheat --resolution 64 --max-images 10 --device cpu --results "$out" --out "$out/erf"
fi

step report
for run in "$out"/*.jsonl; do
  "$python" -m vheatbench report "$run" -o "${run%.jsonl}.html"
done
step "done: $out"
