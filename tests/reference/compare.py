"""Compares what another program computed with the reference: python compare.py FOLDER

FOLDER is described in model.py. Prints, for every quantity, the largest difference over the largest
entry of the reference, and fails if one exceeds the tolerance, is missing, or is unknown. A gradient
that one side leaves out counts as 0.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import model


def difference(ours, theirs):
    """Relative to the largest entry of ours."""
    if ours.numel() != theirs.numel():
        return math.inf
    ours, theirs = ours.double().flatten(), theirs.double().flatten()
    largest = ours.abs().max().item()
    gap = (ours - theirs).abs().max().item()
    gap = math.inf if math.isnan(gap) else gap
    return gap / largest if largest > 0 else (math.inf if gap > 0 else 0.0)


def differences(reference, expected):
    for name in sorted(reference.keys() | expected.keys()):
        ours, theirs = reference.get(name), expected.get(name)
        if name.startswith("gradient."):
            ours = torch.zeros_like(theirs) if ours is None else ours
            theirs = torch.zeros_like(ours) if theirs is None else theirs
        if ours is None or theirs is None:
            yield name, math.inf
        else:
            yield name, difference(ours, theirs)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--tolerance", type=float, default=1e-5)
    arguments.add_argument("--single", action="store_true", help="compute the reference in float32")
    options = arguments.parse_args()
    reference = model.run(options.folder, torch.float32 if options.single else torch.float64)
    expected = load_file(options.folder / "expected.safetensors")
    worst = 0.0
    for name, value in differences(reference, expected):
        worst = max(worst, value)
        print(f"{value:9.2e}  {name}{'' if value <= options.tolerance else '  <- too far'}")
    print(f"{worst:9.2e}  worst of {options.folder.name}")
    return int(worst > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
