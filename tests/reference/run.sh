#!/usr/bin/env bash
# Compares the trainer with PyTorch and Hugging Face transformers: the cases made anew, and models that
# the trainer exports. Installs both into target/reference.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=target/reference
wanted=$(sort tests/reference/requirements.txt)
if [[ "$(cat "$folder/installed" 2>/dev/null || true)" != "$wanted" ]]; then
    rm -rf "$folder"
    mkdir -p target
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r tests/reference/requirements.txt
    echo "$wanted" >"$folder/installed"
fi
rm -rf target/exported
SMOE_EXPORT_FOLDER=target/exported cargo test --lib train::export
"$folder/bin/python" tests/reference/check.py --exported target/exported
