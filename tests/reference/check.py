"""Whether the reference still says what the cases say, and what other programs make of exported models.

    python check.py                     makes all cases anew and compares them with cases/
    python check.py --exported FOLDER   also loads what the trainer exported

FOLDER is what `SMOE_EXPORT_FOLDER=FOLDER cargo test --lib train::export` leaves: models with their
batch.safetensors and expected.safetensors (logits at evaluation) in plain/, mixtral/, qwen2_moe/ and
glm4_moe/. Those in plain/ are computed by model.py, the others by transformers. Fails with everything
that is wrong.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import compare
import make
import model

CASES = Path(__file__).parent / "cases"
# Half the distance of neighbouring numbers of float32, in which expected.safetensors is kept.
ROUNDING = 2.0**-24
TOLERANCE = 1e-12
SINGLE = 1e-5


def of_case(name, changes, folder):
    """What is wrong with the committed case, made anew in folder."""
    make.make(folder, changes)
    committed = CASES / name
    if (folder / "config.json").read_text() != (committed / "config.json").read_text():
        yield f"{name}: config.json differs"
    for file in ("weights.safetensors", "batch.safetensors"):
        new, old = load_file(folder / file), load_file(committed / file)
        if new.keys() != old.keys():
            yield f"{name}: {file} holds {sorted(old)}, not {sorted(new)}"
            continue
        for key in new:
            gap = compare.difference(new[key], old[key])
            if gap > TOLERANCE:
                yield f"{name}: {file}: {key} differs by {gap:.1e}"
    new, old = model.run(folder), load_file(committed / "expected.safetensors")
    if new.keys() != old.keys():
        yield f"{name}: expected.safetensors holds {sorted(old)}, not {sorted(new)}"
        return
    for key, value in new.items():
        gap = (value - old[key].double()).abs() - ROUNDING * value.abs() * (1 + ROUNDING)
        if not (gap <= TOLERANCE * value.abs().max()).all():
            yield f"{name}: {key} differs by {compare.difference(value, old[key]):.1e}"


def cases():
    extra = {folder.name for folder in CASES.iterdir()} ^ make.CASES.keys()
    if extra:
        yield f"cases/ and make.py differ in {sorted(extra)}"
    with tempfile.TemporaryDirectory() as out:
        for name, changes in make.CASES.items():
            yield from of_case(name, changes, Path(out) / name)


def logits_by_ourselves(folder):
    config = model.read_config(folder)
    parameters = load_file(folder / "weights.safetensors")
    batch = load_file(folder / "batch.safetensors")
    batch["targets"] = batch["ids"]
    with torch.no_grad():
        logits, _ = model.forward(config, {name: p.double() for name, p in parameters.items()}, batch)
    return logits


def logits_by_transformers(folder):
    # Only here: the cases need no transformers.
    from transformers import AutoTokenizer

    import mixtral

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for ids in load_file(folder / "batch.safetensors")["ids"].tolist():
        if tokenizer(tokenizer.decode(ids)).input_ids != ids:
            raise ValueError("the tokenizer does not give back its tokens")
    return mixtral.logits(folder)


def exported(out):
    for kind in ("plain", "mixtral", "qwen2_moe", "glm4_moe"):
        folders = sorted((out / kind).glob("*"))
        if not folders:
            yield f"{out / kind} holds no models"
        for folder in folders:
            name = f"{kind}/{folder.name}"
            if kind != "plain" and json.loads((folder / "config.json").read_text())["model_type"] != kind:
                yield f"{name} is of another family"
            try:
                ours = logits_by_ourselves(folder) if kind == "plain" else logits_by_transformers(folder)
            except (ValueError, KeyError, OSError, RuntimeError) as error:
                yield f"{name}: {error}"
                continue
            expected = load_file(folder / "expected.safetensors")["logits"]
            gap = compare.difference(ours, expected)
            print(f"{gap:9.2e}  logits of {name}")
            if gap > SINGLE:
                yield f"{name}: logits differ by {gap:.1e}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--exported", type=Path, metavar="FOLDER")
    options = arguments.parse_args()
    faults = list(cases())
    if options.exported:
        faults += exported(options.exported)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(make.CASES)} cases, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
