#!/usr/bin/env bash
# Installs dataengine and mmrotate into the active environment; dataengine/mmrotate/install.py says how.
#
#     python3 -m venv mmrotate-venv && . mmrotate-venv/bin/activate && tools/install_mmrotate.sh
exec python "$(dirname "$0")/../dataengine/mmrotate/install.py" "$@"
