#!/bin/bash
# The lower layers as they are now.
#   lowers.sh HOME PLYFS FILE
set -euo pipefail
. "$(dirname "$0")/union.sh"
manifest "$1/layers" > "$1/$3"
