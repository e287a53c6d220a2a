#!/bin/sh
# Builds TensorRT engines into the volume where they are missing or do not fit; then serves.
#
#   engines          build them if need be, and end
#   serve [OPTION]   build them if need be, and run `giqa serve` with these options, too
#   COMMAND ...      anything else is run as it is
#
# GIQA_BUNDLE, GIQA_PRECISION, GIQA_MAX_BATCH: what is served and how; GIQA_ENGINES: the volume,
# where engines lie in a folder for each compute capability and TensorRT.
set -eu

volume=${GIQA_ENGINES:-/engines}
bundle=${GIQA_BUNDLE:-giqa-s}
precision=${GIQA_PRECISION:-f16}
max_batch=${GIQA_MAX_BATCH:-32}
# A volume may see several kinds of GPU, and images with other TensorRTs: each has its own folder.
key=$(python3 -c 'from giqa.serving import this_machine; print(this_machine().key)' 2>/dev/null) ||
  key=unknown
place=$volume/$key
engines=$place/$(basename "$bundle")-$precision

fit() {
  python3 - "$engines" "$bundle" "$max_batch" <<'PYTHON'
import sys
from pathlib import Path

from giqa.bundle import load_bundle
from giqa.cli import errors_to_exit_codes
from giqa.serving import all_gpus, load_engines

engines, bundle, max_batch = sys.argv[1:]
with errors_to_exit_codes():
    load_engines(Path(engines), load_bundle(bundle), *all_gpus(), max_batch=int(max_batch))
PYTHON
}

build() {
  echo "building engines for this GPU: $engines" >&2
  python3 -m build engines --bundle "$bundle" --precision "$precision" --max-batch "$max_batch" \
    --timing-cache "$place/timing.cache" --out "$engines"
}

case ${1:-serve} in
  serve | engines) command=${1:-serve} ;;
  *) exec "$@" ;;
esac
[ $# -eq 0 ] || shift

# Containers that share the volume build one after the other; who comes later finds them there.
(
  flock 9
  fit || build
) 9>"$volume/.lock"
[ "$command" = serve ] || exit 0

exec giqa serve --device gpu --bundle "$bundle" --engines "$engines" --max-batch "$max_batch" \
  --address 0.0.0.0 --port 8001 --metrics-port 8002 --watch-port 8003 "$@"
