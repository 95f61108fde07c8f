#!/usr/bin/env bash
# Generates the modules beside the .proto files, with the oldest supported grpcio-tools (see protos/README.md).
#
#   protos/generate.sh [OUT]     OUT defaults to this folder; the drift test gives another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
python=${PENSTOCK_PROTOC_PYTHON:-$here/../.tools/protoc/bin/python}
if [ ! -x "$python" ]; then
  echo "protos: no generator at $python; run 'make protos', which installs it" >&2
  exit 1
fi
cd "$here"
"$python" -m grpc_tools.protoc -I . --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" penstock/v1/*.proto
# Only files that define a service keep a _pb2_grpc module.
for file in penstock/v1/*.proto; do
  grep -q '^service ' "$file" || rm -f "$out/${file%.proto}_pb2_grpc.py"
done
