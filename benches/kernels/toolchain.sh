#!/usr/bin/env bash
# Puts NVRTC and ptxas into target/cuda-toolchain: two wheels, no GPU, no CUDA toolkit.
# The version is fixed, as registers per kernel depend on it.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=13.5.37
folder=target/cuda-toolchain
installed=$("$folder/bin/python" -m pip list --format=freeze 2>/dev/null || true)
if [[ $installed == *"nvidia-cuda-nvrtc==$version"* && $installed == *"nvidia-cuda-nvcc==$version"* ]]; then
    exit 0
fi
mkdir -p target
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check \
    "nvidia-cuda-nvrtc==$version" "nvidia-cuda-nvcc==$version"
