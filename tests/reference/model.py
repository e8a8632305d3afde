"""The transformer with sparse layers in PyTorch, from its description alone.

A folder holds

    config.json           the keys below, flat
    weights.safetensors   parameters by name
    batch.safetensors     ids, targets [sequences, length] (int64; target -1: not counted);
                          noise.layers.{l} [tokens, experts] (float64) for the noisy router
    expected.safetensors  logits [tokens, vocabulary]; loss.NAME, each a single number;
                          gradient.NAME of every parameter that has one

config.json, with names spelled as in the run's file:

    vocabulary, layers, width, heads   sizes
    position      rotary | learned
    norm          layer | root-mean-square
    activation    relu | gelu | silu | swiglu
    bias          everywhere | nowhere
    head          untied | tied
    layout        a list: sparse | dense for every layer
    experts, hidden, shared   of a sparse layer
    router        smoe | switch | noisy | smoe-dropout | xmoe | perturbed-cosine | sigma-moe |
                  deepseek-v3 | unified | competition | compete-v1 | compete-v2
    top_k         K of this step
    combine       softmax-top-k | softmax-top-k-renormalised | top-k-softmax |
                  softmax-top-k-softmax | sigmoid-top-k-renormalised | unified
    scale         multiplies the router's weights
    cosine_normalised, cosine_temperature, cosine_theta   of xmoe and perturbed-cosine
                  (both | experts-only)
    unified_share r of the unified score
    groups, kept_groups       of the choice
    capacity_factor, drop     null, or slots of an expert over pairs / experts; latest | lightest
    balance       null | switch | switch-first | per-assignment | negative-entropy | importance
    balance_scope             step | micro-batch (the same here) | sequence
    balance_distribution      softmax | sigmoid
    balance_coefficient, z_loss   the reduction over layers included, as all coefficients here
    competing     a list: true for every layer that competes at this step
    response      norm | norm-per-root-width | softplus-mean | relu-mean | sigmoid-mean | silu-mean
    competition_combine       top-k-softmax | linear-top-k-renormalised | any other of combine
    target        all | winners
    temperature, spread       raw | standardised
    distillation  full | winners | hybrid | tribrid | divergence
    theta, coefficient        of the distillation
    diversity, diversity_pairs    with-diagonal | distinct
    competition_balance, ..._scope, ..._distribution, ..._coefficient   of the responses
    balance_gradient          winners | all: who learns from it
    router_losses             routed-steps | all-steps
    compatibility             a list of target-gradient | double-softmax

The objective is task + sum over layers of coefficient * loss. Its parts have the names loss.task (nats
per counted target) and loss.balance, .z, .distillation, .diversity and .competition_balance (with
their coefficients, summed over layers; absent where none applies), and loss.total.

What is a constant for autograd: the choice of experts; f of balance losses; the target of the
distillation; the weights of a frozen router (smoe-dropout) and the selection bias (router.bias).
Scores carry gradients into the layer's input. Balance and z-loss are of the scores that choose:
for the noisy router those with noise. Dropped pairs count in f.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

EPSILON = 1e-5
ROTARY_BASE = 10_000.0
CONSTANTS = ("router.bias",)


def read_config(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def read_parameters(folder, config, dtype):
    """Parameters as leaves of the graph; what training leaves alone has no gradient."""
    parameters = load_file(Path(folder) / "weights.safetensors")
    frozen = CONSTANTS + (("router.weight",) if config["router"] == "smoe-dropout" else ())
    return {
        name: value.to(dtype).requires_grad_(not name.endswith(frozen))
        for name, value in parameters.items()
    }


class Scope:
    """Parameters whose names start alike."""

    def __init__(self, parameters, prefix):
        self.parameters, self.prefix = parameters, prefix

    def __getitem__(self, name):
        return self.parameters[self.prefix + name]

    def get(self, name):
        return self.parameters.get(self.prefix + name)

    def within(self, name):
        return Scope(self.parameters, self.prefix + name)


# The transformer


def forward(config, parameters, batch):
    """Logits [tokens, vocabulary], and per layer a dictionary of losses without coefficients."""
    ids = batch["ids"]
    sequences, length = ids.shape
    counted = batch["targets"].reshape(-1) >= 0
    everything = Scope(parameters, "")
    x = parameters["embedding.weight"][ids]
    if config["position"] == "learned":
        x = x + parameters["positions.weight"][:length]
    losses = []
    for index, kind in enumerate(config["layout"]):
        layer = everything.within(f"layers.{index}.")
        x = x + attention(config, layer.within("attention."), norm(config, layer, "attention_norm", x))
        inside = norm(config, layer, "feed_forward_norm", x).reshape(sequences * length, -1)
        if kind == "dense":
            out, own = dense(config, layer.within("dense."), inside), {}
        else:
            noise = batch.get(f"noise.layers.{index}")
            step = Step(counted, length, config["competing"][index], noise)
            out, own = sparse(config, layer, inside, step)
        x = x + out.reshape(x.shape)
        losses.append(own)
    x = norm(config, everything, "final_norm", x).reshape(sequences * length, -1)
    head = parameters["embedding.weight"].T if config["head"] == "tied" else parameters["head.weight"]
    return x @ head, losses


def norm(config, scope, name, x):
    if config["norm"] == "layer":
        x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + EPSILON)
    x = x * scope[name + ".gain"]
    shift = scope.get(name + ".shift")
    return x if shift is None else x + shift


def linear(scope, name, x):
    bias = scope.get(name + ".bias")
    y = x @ scope[name + ".weight"]
    return y if bias is None else y + bias


def attention(config, scope, x):
    sequences, length, width = x.shape
    channels = width // config["heads"]
    parts = linear(scope, "qkv", x).split(width, dim=-1)
    query, key, value = (
        part.reshape(sequences, length, config["heads"], channels).transpose(1, 2) for part in parts
    )
    if config["position"] == "rotary":
        query, key = turned(query), turned(key)
    scores = query @ key.transpose(-1, -2) / math.sqrt(channels)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -math.inf).softmax(-1)
    return linear(scope, "out", (weights @ value).transpose(1, 2).reshape(x.shape))


def turned(x):
    """Channel j and j + channels/2 turn by position * base^(-2 j / channels)."""
    length, channels = x.shape[-2:]
    rates = ROTARY_BASE ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    cosine, sine = angles.cos().to(x), angles.sin().to(x)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


# Feed-forwards


def activate(config, up, gate):
    match config["activation"]:
        case "relu":
            return up.relu()
        case "gelu":
            return functional.gelu(up)
        case "silu":
            return functional.silu(up)
        case "swiglu":
            return functional.silu(gate) * up


def dense(config, scope, x):
    gate = linear(scope, "gate", x) if config["activation"] == "swiglu" else None
    return linear(scope, "down", activate(config, linear(scope, "up", x), gate))


def every_expert(config, scope, x, count):
    """E_e(x_t) of all pairs, [tokens, experts, width]."""

    def of_each(rows, name):
        weight = scope[name + ".weight"]
        y = rows @ weight.reshape(count, -1, weight.shape[-1])
        bias = scope.get(name + ".bias")
        return y if bias is None else y + bias[:, None, :]

    gate = of_each(x, "gate") if config["activation"] == "swiglu" else None
    return of_each(activate(config, of_each(x, "up"), gate), "down").transpose(0, 1)


# Sparse layers


class Step:
    """What a sparse layer knows beside its input."""

    def __init__(self, counted, length, competes, noise):
        self.counted, self.length, self.competes, self.noise = counted, length, competes, noise


class Choice:
    """Chosen pairs as a mask, their weights (0 elsewhere) [tokens, experts], the best expert [tokens]."""

    def __init__(self, chosen, weights, best):
        self.chosen, self.weights, self.best = chosen, weights, best


def sparse(config, layer, x, step):
    outputs = every_expert(config, layer.within("experts."), x, config["experts"])
    scores = router_scores(config, layer.within("router."), x, step)
    routed = route(config, scores, layer.get("router.bias"))
    losses = {}
    if step.competes:
        responses = respond(config["response"], outputs)
        winners = choose(responses, config["top_k"], config["competition_combine"], responses)
        decisive = winners
        losses |= competition_losses(config, scores, responses, outputs, routed, winners, step)
    else:
        decisive = routed
    if not step.competes or config["router_losses"] == "all-steps":
        losses |= router_losses(config, scores, routed, step)
    kept = within_capacity(config, decisive)
    y = torch.einsum("te,ted->td", decisive.weights * kept, outputs)
    if config["shared"]:
        y = y + every_expert(config, layer.within("shared."), x, config["shared"]).sum(1)
    return y, losses


def router_scores(config, scope, x, step):
    if config["router"] in ("xmoe", "perturbed-cosine"):
        theta = config["cosine_theta"]
        u, v = x @ scope["projection.weight"], scope["embeddings"]
        v = v / (v.norm(dim=-1, keepdim=True) + theta)
        if config["cosine_normalised"] == "both":
            u = u / (u.norm(dim=-1, keepdim=True) + theta)
        return u @ v.T / config["cosine_temperature"]
    scores = x @ scope["weight"]
    if config["router"] == "noisy":
        scores = scores + step.noise.to(x) * functional.softplus(x @ scope["noise.weight"])
    return scores


def route(config, scores, bias):
    if config["combine"] == "unified":
        share = config["unified_share"]
        experts = scores.shape[-1]
        scores = (1 - share) * scores.softmax(-1) + share * scores.sigmoid() * 2 / experts
    wanted = scores
    if bias is not None:
        wanted = scores.sigmoid() + bias
    if config["groups"] > 1:
        wanted = scores.sigmoid() if bias is None else wanted
        wanted = within_groups(wanted, config["groups"], config["kept_groups"])
    choice = choose(wanted, config["top_k"], config["combine"], scores)
    return Choice(choice.chosen, choice.weights * config["scale"], choice.best)


def within_groups(wanted, groups, kept):
    """-infinity outside the groups with the largest sums of their two best."""
    grouped = wanted.reshape(len(wanted), groups, -1)
    two_best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
    stay = torch.zeros_like(two_best, dtype=torch.bool)
    stay.scatter_(1, two_best.topk(kept, dim=-1).indices, True)
    return grouped.masked_fill(~stay[:, :, None], -math.inf).reshape(wanted.shape)


def choose(wanted, k, combine, scores):
    """The k most wanted experts of each token, weighed by their scores."""
    order = wanted.detach().sort(dim=-1, descending=True, stable=True).indices[:, :k]
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)
    return Choice(chosen, weigh(combine, scores, chosen), order[:, 0])


def weigh(combine, scores, chosen):
    def among_chosen(values):
        return values.masked_fill(~chosen, -math.inf).softmax(-1)

    def in_proportion(values):
        return values * chosen / (values * chosen).sum(-1, keepdim=True)

    match combine:
        case "softmax-top-k":
            return scores.softmax(-1) * chosen
        case "softmax-top-k-renormalised":
            return in_proportion(scores.softmax(-1))
        case "top-k-softmax":
            return among_chosen(scores)
        case "softmax-top-k-softmax":
            return among_chosen(scores.softmax(-1))
        case "sigmoid-top-k-renormalised":
            return in_proportion(scores.sigmoid())
        case "linear-top-k-renormalised":
            return in_proportion(scores)
        case "unified":
            return scores * chosen


def within_capacity(config, choice):
    """1 for pairs that find a slot, 0 for others."""
    factor = config["capacity_factor"]
    if factor is None:
        return torch.ones_like(choice.weights)
    limit = math.ceil(factor * int(choice.chosen.sum()) / config["experts"])
    kept = torch.zeros_like(choice.weights)
    for expert in range(config["experts"]):
        tokens = choice.chosen[:, expert].nonzero()[:, 0]
        if config["drop"] == "lightest":
            weights = choice.weights[tokens, expert].detach()
            tokens = tokens[weights.sort(descending=True, stable=True).indices]
        kept[tokens[:limit], expert] = 1
    return kept


# Losses


def distribution(name, scores):
    if name == "softmax":
        return scores.softmax(-1)
    return scores.sigmoid() / scores.sigmoid().sum(-1, keepdim=True)


def router_losses(config, scores, routed, step):
    losses = {"z": scores[step.counted].logsumexp(-1).square().mean()}
    if config["balance"]:
        probabilities = distribution(config["balance_distribution"], scores)
        losses["balance"] = balance(config["balance"], config["balance_scope"], probabilities, routed, step)
    return losses


def balance(kind, scope, probabilities, choice, step):
    """One value for all counted tokens, or the mean over sequences that have one."""
    length = step.length if scope == "sequence" else len(probabilities)
    values = [
        balance_of_group(kind, probabilities[group], choice.chosen[group], choice.best[group])
        for group in torch.arange(len(probabilities)).split(length)
        for group in [group[step.counted[group]]]
        if len(group)
    ]
    return sum(values) / len(values)


def balance_of_group(kind, probabilities, chosen, best):
    tokens, experts = probabilities.shape
    pairs = chosen.sum()
    of_all = chosen.sum(0) / pairs
    of_first = functional.one_hot(best, experts).sum(0) / tokens
    mean = probabilities.mean(0)
    match kind:
        case "switch":
            return experts * (of_all * mean).sum()
        case "switch-first":
            return experts * (of_first * mean).sum()
        case "per-assignment":
            return experts * (of_all * probabilities.sum(0)).sum() / pairs
        case "negative-entropy":
            return (mean * mean.log()).sum()
        case "importance":
            total = probabilities.sum(0)
            return total.var(correction=0) / total.mean().square()


def respond(response, outputs):
    match response:
        case "norm":
            return outputs.norm(dim=-1)
        case "norm-per-root-width":
            return outputs.norm(dim=-1) / math.sqrt(outputs.shape[-1])
        case "softplus-mean":
            return functional.softplus(outputs).mean(-1)
        case "relu-mean":
            return outputs.relu().mean(-1)
        case "sigmoid-mean":
            return outputs.sigmoid().mean(-1)
        case "silu-mean":
            return functional.silu(outputs).mean(-1)


def competition_losses(config, scores, responses, outputs, routed, winners, step):
    losses = {}
    if config["coefficient"]:
        losses["distillation"] = distil(config, scores, responses, routed, winners, step)
    if config["diversity"]:
        losses["diversity"] = diversity(config, outputs, winners, step)
    if config["competition_balance"]:
        if config["balance_gradient"] == "winners":
            responses = torch.where(winners.chosen, responses, responses.detach())
        if "double-softmax" in config["compatibility"]:
            responses = responses.softmax(-1)
        losses["competition_balance"] = balance(
            config["competition_balance"],
            config["competition_balance_scope"],
            distribution(config["competition_balance_distribution"], responses),
            winners,
            step,
        )
    return losses


def distil(config, scores, responses, routed, winners, step):
    if "target-gradient" not in config["compatibility"]:
        responses = responses.detach()
    if config["spread"] == "standardised":
        responses = responses - responses.mean(-1, keepdim=True)
        responses = responses / responses.std(-1, correction=0, keepdim=True)
    responses = responses / config["temperature"]
    if config["target"] == "winners":
        responses = responses.masked_fill(~winners.chosen, -math.inf)
    target = responses.softmax(-1)[step.counted]
    if config["distillation"] == "divergence":
        log_ratio = torch.where(target > 0, target.log() - scores[step.counted].log_softmax(-1), 0.0)
        return (target * log_ratio).sum(-1).mean()
    gap = (scores.softmax(-1)[step.counted] - target).square()
    full = gap.mean()
    won = gap[winners.chosen[step.counted]].mean()
    match config["distillation"]:
        case "full":
            return full
        case "winners":
            return won
        case "hybrid":
            return full + config["theta"] * won
        case "tribrid":
            own = gap[routed.chosen[step.counted]].mean()
            return full + config["theta"] * (won + own)


def diversity(config, outputs, winners, step):
    """Mean over tokens of the cosines of their winners' outputs, without the diagonal."""
    k = config["top_k"]
    pairs = k * k if config["diversity_pairs"] == "with-diagonal" else k * (k - 1)
    own = outputs[winners.chosen].reshape(len(outputs), k, -1)[step.counted]
    own = own / own.norm(dim=-1, keepdim=True)
    cosines = own @ own.transpose(1, 2)
    return ((cosines.sum((1, 2)) - k) / pairs).mean()


# The objective


def objective(config, parameters, batch):
    """Logits, losses by name, gradients of loss.total by parameter."""
    logits, layers = forward(config, parameters, batch)
    targets = batch["targets"].reshape(-1)
    losses = {"task": functional.cross_entropy(logits, targets, ignore_index=-1)}
    coefficients = {
        "balance": config["balance_coefficient"],
        "z": config["z_loss"],
        "distillation": config["coefficient"],
        "diversity": config["diversity"],
        "competition_balance": config["competition_balance_coefficient"],
    }
    for name, coefficient in coefficients.items():
        values = [coefficient * own[name] for own in layers if name in own]
        if values and coefficient:
            losses[name] = sum(values)
    total = sum(losses.values())
    losses["total"] = total
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return (
        logits.detach(),
        {name: value.detach() for name, value in losses.items()},
        {name: g for name, g in zip(trained, gradients) if g is not None},
    )


def run(folder, dtype=torch.float64):
    """Everything expected.safetensors holds, computed here."""
    config = read_config(folder)
    batch = load_file(Path(folder) / "batch.safetensors")
    parameters = read_parameters(folder, config, dtype)
    logits, losses, gradients = objective(config, parameters, batch)
    named = {"logits": logits}
    named |= {f"loss.{name}": value.reshape(1) for name, value in losses.items()}
    return named | {f"gradient.{name}": value for name, value in gradients.items()}
