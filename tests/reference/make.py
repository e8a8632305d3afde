"""Small random cases of every method, for tests that run without Python: python make.py OUT

Every case is a folder as model.py describes it, with expected.safetensors computed there in float64
and kept in float32. The committed cases/ is what this writes; two runs write the same bytes.

Coefficients are far larger than anyone would train with, so that no loss hides behind the task's.
A case takes the first seed for which a change of all weights by 1e-5 changes no result by more than
1e-3: no choice of experts hangs on rounding.
"""

import argparse
import hashlib
import itertools
import json
import math
import struct
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import compare
import model

SEQUENCES, LENGTH = 2, 8

# The noise is what the crate draws for this seed and this step, from its stream named
# "layers.{l}" for the purpose of this number; key and numbers as src/rng.rs describes them.
NOISE_SEED, NOISE_STEP, NOISE_PURPOSE = 1, 0, 9

BASE = {
    "vocabulary": 11,
    "layers": 2,
    "width": 16,
    "heads": 2,
    "position": "rotary",
    "norm": "layer",
    "activation": "relu",
    "bias": "nowhere",
    "head": "untied",
    "layout": ["sparse", "sparse"],
    "dense_hidden": 12,
    "experts": 4,
    "hidden": 6,
    "shared": 0,
    "router": "smoe",
    "top_k": 2,
    "combine": "top-k-softmax",
    "scale": 1.0,
    "cosine_width": 4,
    "cosine_normalised": "both",
    "cosine_temperature": 0.3,
    "cosine_theta": 0.0,
    "unified_share": 0.5,
    "selection_bias": False,
    "groups": 1,
    "kept_groups": 1,
    "capacity_factor": None,
    "drop": "latest",
    "balance": "switch",
    "balance_scope": "step",
    "balance_distribution": "softmax",
    "balance_coefficient": 0.5,
    "z_loss": 0.0,
    "competing": [False, False],
    "response": "softplus-mean",
    "competition_combine": "linear-top-k-renormalised",
    "target": "all",
    "temperature": 1.0,
    "spread": "raw",
    "distillation": "full",
    "theta": 0.2,
    "coefficient": 0.0,
    "diversity": 0.0,
    "diversity_pairs": "with-diagonal",
    "competition_balance": None,
    "competition_balance_scope": "step",
    "competition_balance_distribution": "softmax",
    "competition_balance_coefficient": 0.0,
    "balance_gradient": "winners",
    "router_losses": "routed-steps",
    "compatibility": [],
}

NO_BALANCE = {"balance": None, "balance_coefficient": 0.0}
COSINE = {"router": "xmoe", "combine": "softmax-top-k-softmax"}
FIRST = {
    "router": "compete-v1",
    "competing": [True, True],
    "response": "norm",
    "competition_combine": "top-k-softmax",
    "target": "winners",
    "coefficient": 4.0,
}
SECOND = {
    "router": "compete-v2",
    "competing": [True, False],
    "distillation": "hybrid",
    "coefficient": 4.0,
    "diversity": 0.5,
    "z_loss": 0.1,
}

# What a case changes, and "uncounted": whether some targets are not counted.
CASES = {
    "smoe": {"z_loss": 0.1},
    "smoe-biases": {
        "position": "learned",
        "activation": "gelu",
        "bias": "everywhere",
        "head": "tied",
        "shared": 1,
        "combine": "softmax-top-k-renormalised",
        "balance": "switch-first",
        "balance_scope": "sequence",
        "uncounted": True,
    },
    "smoe-mixtral": {"norm": "root-mean-square", "activation": "swiglu"},
    "smoe-qwen": {
        "norm": "root-mean-square",
        "activation": "swiglu",
        "head": "tied",
        "layout": ["dense", "sparse"],
        "shared": 2,
        "combine": "softmax-top-k",
    },
    "smoe-alternating": {
        "norm": "root-mean-square",
        "activation": "swiglu",
        "bias": "everywhere",
        "layout": ["dense", "sparse"],
        "combine": "softmax-top-k",
        "scale": 1.5,
        "balance": "per-assignment",
        "z_loss": 0.1,
        "uncounted": True,
    },
    "dense": {"layout": ["dense", "dense"], "activation": "silu", "bias": "everywhere", **NO_BALANCE},
    "switch": {"router": "switch", "top_k": 1, "combine": "softmax-top-k", "capacity_factor": 1.25},
    "switch-lightest": {
        "router": "switch",
        "combine": "softmax-top-k",
        "activation": "silu",
        "capacity_factor": 0.75,
        "drop": "lightest",
    },
    "noisy": {"router": "noisy", "balance": "importance", "balance_scope": "micro-batch", "z_loss": 0.1},
    "smoe-dropout": {"router": "smoe-dropout", "top_k": 3, "activation": "gelu", **NO_BALANCE},
    "xmoe": {**COSINE, "z_loss": 0.01},
    "xmoe-experts-only": {**COSINE, "cosine_normalised": "experts-only", "balance_scope": "sequence"},
    "perturbed-cosine": {**COSINE, "router": "perturbed-cosine", "cosine_theta": 0.1, "uncounted": True},
    "sigma-moe": {
        "router": "sigma-moe",
        "combine": "sigmoid-top-k-renormalised",
        "balance": "negative-entropy",
        "balance_scope": "sequence",
        "uncounted": True,
    },
    "deepseek-v3": {
        "router": "deepseek-v3",
        "norm": "root-mean-square",
        "activation": "swiglu",
        "experts": 6,
        "hidden": 4,
        "shared": 2,
        "combine": "sigmoid-top-k-renormalised",
        "scale": 2.5,
        "selection_bias": True,
        "groups": 3,
        "kept_groups": 2,
        "balance_scope": "sequence",
        "balance_distribution": "sigmoid",
    },
    "unified": {"router": "unified", "combine": "unified"},
    "competition": {"router": "competition", "competing": [True, True], **NO_BALANCE},
    "compete-v1": FIRST,
    "compete-v1-divergence": {
        **FIRST,
        "activation": "swiglu",
        "bias": "everywhere",
        "response": "norm-per-root-width",
        "temperature": 0.5,
        "distillation": "divergence",
        "coefficient": 0.5,
        "uncounted": True,
    },
    "compete-v1-target-gradient": {**FIRST, "compatibility": ["target-gradient"]},
    "compete-v2": SECOND,
    "compete-v2-every-layer": {**SECOND, "competing": [True, True], "uncounted": True},
    "compete-v2-routed": {**SECOND, "competing": [False, False]},
    "compete-v2-tribrid": {
        **SECOND,
        "top_k": 3,
        "shared": 1,
        "response": "silu-mean",
        "competition_combine": "sigmoid-top-k-renormalised",
        "spread": "standardised",
        "distillation": "tribrid",
        "diversity_pairs": "distinct",
        "competition_balance": "switch",
        "competition_balance_coefficient": 2.0,
        "router_losses": "all-steps",
    },
    "compete-v2-balance-for-all": {
        **SECOND,
        "response": "sigmoid-mean",
        "competition_combine": "top-k-softmax",
        "temperature": 0.1,
        "distillation": "winners",
        "competition_balance": "negative-entropy",
        "competition_balance_scope": "sequence",
        "competition_balance_coefficient": 20.0,
        "balance_gradient": "all",
        "uncounted": True,
    },
    "compete-v2-double-softmax": {
        **SECOND,
        "activation": "gelu",
        "bias": "everywhere",
        "response": "relu-mean",
        "target": "winners",
        "distillation": "divergence",
        "competition_balance": "importance",
        "competition_balance_scope": "micro-batch",
        "competition_balance_coefficient": 50.0,
        "compatibility": ["double-softmax"],
    },
}

# All values of every choice; make fails if the cases leave one out.
VALUES = {
    "position": ["rotary", "learned"],
    "norm": ["layer", "root-mean-square"],
    "activation": ["relu", "gelu", "silu", "swiglu"],
    "bias": ["everywhere", "nowhere"],
    "head": ["tied", "untied"],
    "router": [
        "smoe",
        "switch",
        "noisy",
        "smoe-dropout",
        "xmoe",
        "perturbed-cosine",
        "sigma-moe",
        "deepseek-v3",
        "unified",
        "competition",
        "compete-v1",
        "compete-v2",
    ],
    "combine": [
        "softmax-top-k",
        "softmax-top-k-renormalised",
        "top-k-softmax",
        "softmax-top-k-softmax",
        "sigmoid-top-k-renormalised",
        "unified",
    ],
    "competition_combine": ["top-k-softmax", "linear-top-k-renormalised", "sigmoid-top-k-renormalised"],
    "cosine_normalised": ["both", "experts-only"],
    "drop": ["latest", "lightest"],
    "balance": [None, "switch", "switch-first", "per-assignment", "negative-entropy", "importance"],
    "balance_scope": ["step", "micro-batch", "sequence"],
    "balance_distribution": ["softmax", "sigmoid"],
    "response": ["norm", "norm-per-root-width", "softplus-mean", "relu-mean", "sigmoid-mean", "silu-mean"],
    "target": ["all", "winners"],
    "spread": ["raw", "standardised"],
    "distillation": ["full", "winners", "hybrid", "tribrid", "divergence"],
    "diversity_pairs": ["with-diagonal", "distinct"],
    "balance_gradient": ["winners", "all"],
    "router_losses": ["routed-steps", "all-steps"],
}


def shapes(config):
    """The shape of every parameter, in the order of the model."""
    width, experts = config["width"], config["experts"]
    biases = config["bias"] == "everywhere"
    yield "embedding.weight", (config["vocabulary"], width)
    if config["position"] == "learned":
        yield "positions.weight", (LENGTH, width)
    for index, kind in enumerate(config["layout"]):
        layer = f"layers.{index}."
        yield from norm_shapes(config, layer + "attention_norm.")
        for name, columns in [("qkv", 3 * width), ("out", width)]:
            yield f"{layer}attention.{name}.weight", (width, columns)
            if biases:
                yield f"{layer}attention.{name}.bias", (columns,)
        yield from norm_shapes(config, layer + "feed_forward_norm.")
        if kind == "dense":
            for name, shape in feed_forward_shapes(config, 1, config["dense_hidden"]):
                yield f"{layer}dense.{name}", shape[-1:] if name.endswith("bias") else shape
            continue
        for name, shape in feed_forward_shapes(config, experts, config["hidden"]):
            yield f"{layer}experts.{name}", shape
        if config["shared"]:
            for name, shape in feed_forward_shapes(config, config["shared"], config["hidden"]):
                yield f"{layer}shared.{name}", shape
        for name, shape in router_shapes(config):
            yield f"{layer}router.{name}", shape
    yield from norm_shapes(config, "final_norm.")
    if config["head"] == "untied":
        yield "head.weight", (width, config["vocabulary"])


def norm_shapes(config, prefix):
    yield prefix + "gain", (config["width"],)
    if config["norm"] == "layer" and config["bias"] == "everywhere":
        yield prefix + "shift", (config["width"],)


def feed_forward_shapes(config, count, hidden):
    width = config["width"]
    yield "up.weight", (count * width, hidden)
    if config["activation"] == "swiglu":
        yield "gate.weight", (count * width, hidden)
    yield "down.weight", (count * hidden, width)
    if config["bias"] == "everywhere":
        yield "up.bias", (count, hidden)
        yield "down.bias", (count, width)


def router_shapes(config):
    width, experts = config["width"], config["experts"]
    if config["router"] in ("xmoe", "perturbed-cosine"):
        yield "projection.weight", (width, config["cosine_width"])
        yield "embeddings", (experts, config["cosine_width"])
        return
    yield "weight", (width, experts)
    if config["router"] == "noisy":
        yield "noise.weight", (width, experts)
    if config["selection_bias"]:
        yield "bias", (1, experts)


def draw(config, uncounted, seed):
    """Random parameters and a random batch."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    parameters = {}
    for name, shape in shapes(config):
        scale = 1.0 if name == "embedding.weight" else 0.3
        values = scale * normal(*shape) + (1.0 if name.endswith("gain") else 0.0)
        # Short numbers pack better.
        parameters[name] = (values * 256).round() / 256
    ids = torch.randint(config["vocabulary"], (SEQUENCES, LENGTH + 1), generator=generator)
    targets = ids[:, 1:].clone()
    if uncounted:
        targets[0, 5:] = -1
        targets[1, :2] = -1
    batch = {"ids": ids[:, :-1].contiguous(), "targets": targets}
    if config["router"] == "noisy":
        for layer in range(config["layers"]):
            batch[f"noise.layers.{layer}"] = noise(layer, SEQUENCES * LENGTH, config["experts"])
    return parameters, batch


def philox(counter, key):
    """Philox4x32 of ten rounds (Salmon, Moraes, Dror, Shaw 2011)."""
    low = 0xFFFFFFFF
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & low,
            (first >> 32) ^ counter[3] ^ key[1],
            first & low,
        ]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return counter


def noise(layer, tokens, experts):
    """Standard normals of (token, expert) by the cosine branch of Box and Muller."""
    name = f"layers.{layer}".encode()
    words = struct.pack("<QQ", NOISE_SEED, len(name)), name, struct.pack("<QQ", NOISE_STEP, NOISE_PURPOSE)
    key = struct.unpack("<2I", hashlib.sha256(b"".join(words)).digest()[:8])

    def normal(token, expert):
        a, b, c, d = philox([token, 0, expert, 0], key)
        u, v = (((((high << 32) | low) >> 11) + 0.5) * 2.0**-53 for low, high in [(a, b), (c, d)])
        return math.sqrt(-2 * math.log(u)) * math.cos(math.tau * v)

    rows = [[normal(token, expert) for expert in range(experts)] for token in range(tokens)]
    return torch.tensor(rows, dtype=torch.float64)


def is_steady(folder, parameters, expected):
    """Whether a small change of all weights changes all results a little."""
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: value * (1 + 1e-5 * torch.randn(value.shape, generator=generator))
        for name, value in parameters.items()
    }
    save_file(moved, folder / "weights.safetensors")
    changed = compare.differences(model.run(folder), expected)
    return all(change < 1e-3 for _, change in changed)


def make(folder, changes):
    uncounted = changes.get("uncounted", False)
    config = BASE | {key: value for key, value in changes.items() if key != "uncounted"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for seed in itertools.count():
        parameters, batch = draw(config, uncounted, seed)
        save_file(parameters, folder / "weights.safetensors")
        save_file(batch, folder / "batch.safetensors")
        expected = model.run(folder)
        if is_steady(folder, parameters, expected):
            break
    save_file(parameters, folder / "weights.safetensors")
    narrow = {name: value.float().contiguous() for name, value in expected.items()}
    save_file(narrow, folder / "expected.safetensors")
    trained = sum(name.startswith("gradient.") for name in narrow)
    losses = {name[5:]: f"{value.item():.4g}" for name, value in narrow.items() if name.startswith("loss.")}
    print(f"{folder.name}: seed {seed}, {trained} of {len(parameters)} parameters trained, {losses}")
    return config


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out", type=Path)
    out = arguments.parse_args().out
    configs = [make(out / name, changes) for name, changes in CASES.items()]
    for key, values in VALUES.items():
        missing = [value for value in values if all(config[key] != value for config in configs)]
        if missing:
            sys.exit(f"no case has {key} = {missing}")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len(configs)} cases, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
