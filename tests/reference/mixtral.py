"""Whether transformers computes the logits of an exported model: python mixtral.py FOLDER

FOLDER holds what an export wrote, config.json and model.safetensors, and beside it batch.safetensors
and expected.safetensors of model.py (of the latter only the logits are read). Fails if a tensor of the
model is missing or left over, or if logits differ by more than the tolerance times the largest logit.
export.py makes such a folder from a case, and says which tensor goes where.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import compare


def logits(folder):
    """Of transformers, for the batch in the folder; ValueError unless it takes every tensor."""
    # The other implementations of experts need widths of whole 16 bytes.
    network, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager", output_loading_info=True
    )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if loading[fault]:
            raise ValueError(f"{fault}: {sorted(loading[fault])}")
    ids = load_file(folder / "batch.safetensors")["ids"]
    with torch.no_grad():
        return network.eval()(input_ids=ids, use_cache=False).logits


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--tolerance", type=float, default=1e-5)
    options = arguments.parse_args()
    expected = load_file(options.folder / "expected.safetensors")["logits"]
    value = compare.difference(logits(options.folder), expected)
    print(f"{value:9.2e}  logits of {options.folder.name}")
    return int(value > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
