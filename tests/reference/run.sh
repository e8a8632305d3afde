#!/usr/bin/env bash
# Compares the trainer with PyTorch and Hugging Face transformers: the cases made anew, and models that
# the trainer exports. Installs both (6 GB) into target/reference; says so and stops where that fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=target/reference
wanted=$(sort tests/reference/requirements.txt)
if [[ "$(cat "$folder/installed" 2>/dev/null || true)" != "$wanted" ]]; then
    rm -rf "$folder"
    mkdir -p target
    python3 -m venv "$folder"
    if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r tests/reference/requirements.txt; then
        rm -rf "$folder"
        echo "skipped: PyTorch and transformers cannot be installed here"
        exit 0
    fi
    echo "$wanted" >"$folder/installed"
fi
rm -rf target/exported
SMOE_EXPORT_FOLDER=target/exported cargo test --lib train::export
"$folder/bin/python" tests/reference/check.py --exported target/exported
