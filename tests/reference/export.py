"""A model of ours in the layout of transformers: python export.py CASE OUT

Ours computes y = x W with W of shape (in, out); theirs keeps (out, in). Below, T is the transpose, w the
width, and E an expert's own rows of a matrix of all experts. transformers 5 keeps experts fused in
memory and in what it saves, and merges single experts while it loads; the single ones are written here,
which versions 4 and other programs read too.

| ours | Mixtral | Qwen2-MoE and GLM-4-MoE |
|---|---|---|
| embedding.weight | model.embed_tokens.weight | same |
| layers.L.attention_norm.gain | model.layers.L.input_layernorm.weight | same |
| layers.L.attention.qkv.weight T, rows 0..w, w..2w, 2w..3w | ...self_attn.q_proj, k_proj, v_proj.weight | same |
| layers.L.attention.out.weight T | ...self_attn.o_proj.weight | same |
| layers.L.feed_forward_norm.gain | ...post_attention_layernorm.weight | same |
| layers.L.router.weight T | ...block_sparse_moe.gate.weight | ...mlp.gate.weight |
| layers.L.router.bias | | ...mlp.gate.e_score_correction_bias (GLM) |
| layers.L.experts.gate.weight E T | ...block_sparse_moe.experts.E.w1.weight | ...mlp.experts.E.gate_proj.weight |
| layers.L.experts.up.weight E T | ...experts.E.w3.weight | ...mlp.experts.E.up_proj.weight |
| layers.L.experts.down.weight E T | ...experts.E.w2.weight | ...mlp.experts.E.down_proj.weight |
| layers.L.shared.gate, up, down | | one expert as wide as all: ...mlp.shared_expert (Qwen), shared_experts (GLM) |
| layers.L.dense.gate, up, down .weight T | | ...mlp.gate_proj, up_proj, down_proj.weight |
| final_norm.gain | model.norm.weight | same |
| head.weight T, absent if tied | lm_head.weight | same |

All three need: RMS norm, rotary positions (over the whole head, base 10 000), swiglu, no biases, no
capacity, a router of its own (not competition, which judges by experts). Heads may be tied or not.

| | Mixtral | Qwen2-MoE | GLM-4-MoE |
|---|---|---|---|
| combine | top-k-softmax, softmax-top-k-renormalised | these, and softmax-top-k | sigmoid-top-k-renormalised |
| scale | 1 | 1 | any |
| groups, selection bias | no | no | yes; groups of at least 2 experts |
| shared experts | none | any number | any number |
| layers | all sparse | any layout | sparse, after any number of dense ones |

A Qwen2-MoE gates its shared expert by a sigmoid: with a gate of weight 0 the gate is 1/2, so that
down-projections are written twice as large. It and GLM-4-MoE always have a shared expert; a model without
gets one of zeros. Smaller scales than 1 would fold into down-projections alike.
Not OLMoE, for all its softmax-top-k: it normalises queries and keys, and no weights undo that.
Qwen3-MoE does too. Elsewhere nothing stands for cosine, noisy (evaluated without noise it is smoe)
or unified scores.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import model


def family(config):
    """Which of their models can stand for ours."""
    needs = {"position": "rotary", "norm": "root-mean-square", "activation": "swiglu", "bias": "nowhere"}
    for key, value in needs.items():
        if config[key] != value:
            sys.exit(f"{key} must be {value}")
    if config["router"] in ("competition", "xmoe", "perturbed-cosine") or config["capacity_factor"]:
        sys.exit("a router that no model of theirs has")
    if config["combine"] == "sigmoid-top-k-renormalised":
        if config["layout"] != sorted(config["layout"]):
            sys.exit("sigmoid scores need dense layers before all sparse ones")
        return "glm4_moe"
    if config["scale"] != 1 or config["groups"] > 1 or config["combine"] not in (
        "top-k-softmax",
        "softmax-top-k-renormalised",
        "softmax-top-k",
    ):
        sys.exit("weights that no model of theirs has")
    plain = config["combine"] != "softmax-top-k" and not config["shared"]
    return "mixtral" if plain and "dense" not in config["layout"] else "qwen2_moe"


def description(config, kind):
    """Their config.json."""
    head = config["width"] // config["heads"]
    shared = {
        "model_type": kind,
        "vocab_size": config["vocabulary"],
        "hidden_size": config["width"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "num_key_value_heads": config["heads"],
        "head_dim": head,
        "hidden_act": "silu",
        "rms_norm_eps": model.EPSILON,
        "rope_theta": model.ROTARY_BASE,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": config["head"] == "tied",
        "num_experts_per_tok": config["top_k"],
        "bos_token_id": None,
        "eos_token_id": None,
        "torch_dtype": "float32",
    }
    if kind == "mixtral":
        return shared | {
            "architectures": ["MixtralForCausalLM"],
            "intermediate_size": config["hidden"],
            "num_local_experts": config["experts"],
            "sliding_window": None,
        }
    shared |= {"intermediate_size": config["dense_hidden"], "moe_intermediate_size": config["hidden"]}
    if kind == "qwen2_moe":
        return shared | {
            "architectures": ["Qwen2MoeForCausalLM"],
            "num_experts": config["experts"],
            "norm_topk_prob": config["combine"] != "softmax-top-k",
            "shared_expert_intermediate_size": max(config["shared"], 1) * config["hidden"],
            "mlp_only_layers": [i for i, layer in enumerate(config["layout"]) if layer == "dense"],
            "decoder_sparse_step": 1,
            "qkv_bias": False,
            "use_sliding_window": False,
        }
    return shared | {
        "architectures": ["Glm4MoeForCausalLM"],
        "n_routed_experts": config["experts"],
        "n_shared_experts": max(config["shared"], 1),
        "n_group": config["groups"],
        "topk_group": config["kept_groups"],
        "norm_topk_prob": True,
        "routed_scaling_factor": config["scale"],
        "first_k_dense_replace": config["layout"].count("dense"),
        "partial_rotary_factor": 1.0,
        "use_qk_norm": False,
        "attention_bias": False,
    }


def tensors(config, ours, kind):
    """Their names and arrays."""
    width = config["width"]
    yield "model.embed_tokens.weight", ours["embedding.weight"]
    yield "model.norm.weight", ours["final_norm.gain"]
    if config["head"] == "untied":
        yield "lm_head.weight", ours["head.weight"].T
    for index, layer in enumerate(config["layout"]):
        own = model.Scope(ours, f"layers.{index}.")
        prefix = f"model.layers.{index}."
        yield prefix + "input_layernorm.weight", own["attention_norm.gain"]
        yield prefix + "post_attention_layernorm.weight", own["feed_forward_norm.gain"]
        for part, rows in zip("qkv", own["attention.qkv.weight"].T.split(width)):
            yield f"{prefix}self_attn.{part}_proj.weight", rows
        yield prefix + "self_attn.o_proj.weight", own["attention.out.weight"].T
        if layer == "dense":
            yield from feed_forward(prefix + "mlp.", own.within("dense."))
        elif kind == "mixtral":
            yield from mixtral_layer(config, prefix + "block_sparse_moe.", own)
        else:
            yield from shared_layer(config, prefix + "mlp.", own, kind)


def each_expert(config, scope):
    """An expert's gate, up and down."""
    count = config["experts"]
    parts = [scope[f"{part}.weight"].chunk(count) for part in ("gate", "up", "down")]
    return enumerate(zip(*parts))


def mixtral_layer(config, prefix, own):
    yield prefix + "gate.weight", own["router.weight"].T
    for expert, (gate, up, down) in each_expert(config, own.within("experts.")):
        yield f"{prefix}experts.{expert}.w1.weight", gate.T
        yield f"{prefix}experts.{expert}.w2.weight", down.T
        yield f"{prefix}experts.{expert}.w3.weight", up.T


def shared_layer(config, prefix, own, kind):
    yield prefix + "gate.weight", own["router.weight"].T
    for expert, (gate, up, down) in each_expert(config, own.within("experts.")):
        yield f"{prefix}experts.{expert}.gate_proj.weight", gate.T
        yield f"{prefix}experts.{expert}.up_proj.weight", up.T
        yield f"{prefix}experts.{expert}.down_proj.weight", down.T
    width, hidden = config["width"], config["hidden"]
    if kind == "glm4_moe":
        bias = own.get("router.bias")
        bias = torch.zeros(config["experts"]) if bias is None else bias.reshape(-1)
        yield prefix + "gate.e_score_correction_bias", bias
        name, factor = "shared_experts.", 1
    else:
        yield prefix + "shared_expert_gate.weight", torch.zeros(1, width)
        name, factor = "shared_expert.", 2
    if not config["shared"]:
        wide = {"gate.weight": torch.zeros(width, hidden), "up.weight": torch.zeros(width, hidden)}
        wide["down.weight"] = torch.zeros(hidden, width)
    else:
        scope, count = own.within("shared."), config["shared"]
        side_by_side = {
            f"{part}.weight": torch.cat(scope[f"{part}.weight"].chunk(count), dim=1) for part in ("gate", "up")
        }
        wide = side_by_side | {"down.weight": factor * scope["down.weight"]}
    yield from feed_forward(prefix + name, wide)


def feed_forward(prefix, scope):
    for part in ("gate", "up", "down"):
        yield f"{prefix}{part}_proj.weight", scope[f"{part}.weight"].T


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("case", type=Path)
    arguments.add_argument("out", type=Path)
    options = arguments.parse_args()
    config = model.read_config(options.case)
    kind = family(config)
    ours = load_file(options.case / "weights.safetensors")
    theirs = {name: value.contiguous() for name, value in tensors(config, ours, kind)}
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(theirs, options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "config.json").write_text(json.dumps(description(config, kind), indent=1) + "\n")
    for name in ("batch.safetensors", "expected.safetensors"):
        shutil.copy(options.case / name, options.out / name)
    print(f"{options.case.name} as {kind}")


if __name__ == "__main__":
    main()
