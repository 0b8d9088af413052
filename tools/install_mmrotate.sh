#!/usr/bin/env bash
# Installs dataengine and mmrotate (OpenMMLab's maintained line, import name mmrotate) into the active environment.
#
#     python3 -m venv mmrotate-venv && . mmrotate-venv/bin/activate && tools/install_mmrotate.sh
#
# The order matters: first torch and torchvision of one build, then onedl-mmcv compiled against that torch, then the rest.
# An installed torch and torchvision that load together are kept, such as those of a CUDA machine. Environment variables:
#     MMCV_WHEELS  folder with a prebuilt wheel of onedl-mmcv for the CPU; default ../shared/wheels if it exists
#     MAX_JOBS     processes that compile onedl-mmcv if there is no wheel; default: all cores
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${MMCV_WHEELS:-../shared/wheels}
install="python -m pip install --quiet"
works="from mmcv.ops import box_iou_rotated, nms_rotated; import mmrotate.models, mmrotate.datasets"

say() { echo "install_mmrotate: $*" >&2; }

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    say "no virtual environment is active; make one first: python3 -m venv mmrotate-venv && . mmrotate-venv/bin/activate"
    exit 2
fi
$install --upgrade pip
if ! python -c "import torch, torchvision" 2>/dev/null; then
    say "torch 2.13.0 and torchvision 0.28.0"
    $install "torch===2.13.0" "torchvision==0.28.0" # === : no other build (2.13.0+...), which torchvision cannot load
fi
python -c 'import torch; major, minor = map(int, torch.__version__.split(".")[:2]); assert (2, 8) <= (major, minor) < (2, 14)' || {
    say "onedl-mmcv compiles against torch 2.8 to 2.13; install such a torch with its torchvision, or none, and repeat"
    exit 2
}
cuda=$(python -c "import torch; print(int(torch.cuda.is_available()))")
if ! python -c "from mmcv.ops import nms_rotated" 2>/dev/null; then
    built_for=$(python -c 'import sys, torch; print(torch.__version__.split("+")[0], "cp%d%d" % sys.version_info[:2])')
    prebuilt=$(find "$wheels" -name "onedl_mmcv-*-${built_for#* }-*.whl" 2>/dev/null | head -n 1)
    if [ "$cuda" = 0 ] && [ -n "$prebuilt" ] && [ "${built_for% *}" = 2.13.0 ]; then
        say "onedl-mmcv from $prebuilt"
        $install "$prebuilt"
    else
        if [ "$cuda" = 1 ] && ! python -c "from torch.utils.cpp_extension import CUDA_HOME; assert CUDA_HOME" 2>/dev/null; then
            say "this machine has a CUDA device but no CUDA compiler; install the CUDA toolkit of torch's version (nvcc)"
            exit 2
        fi
        say "onedl-mmcv from source, 10 to 20 minutes on two cores"
        $install ninja setuptools wheel psutil
        MMCV_WITH_OPS=1 FORCE_CUDA=$cuda MAX_JOBS=${MAX_JOBS:-$(nproc)} \
            $install --no-build-isolation --no-binary onedl-mmcv "onedl-mmcv>=2.3.6,<2.4"
    fi
fi
say "mmrotate and dataengine"
$install -e ".[mmrotate,test]"
python -c "$works"
say "done: $(python -c 'from importlib.metadata import version; print(*(f"{n} {version(n)}" for n in ("torch", "onedl-mmcv", "onedl-mmrotate")), sep=", ")')"
