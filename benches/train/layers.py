"""Sparse layers and blocks in PyTorch, the peers of peers.py.

A layer maps [tokens, width] to the same shape and its auxiliary loss. Experts are relu(x U) V without
biases; K = top_k. A routed step: softmax over the K best scores, balance loss of Switch. A competition
step (CompeteSMoE v2): affinities of all experts, mean softplus of their outputs; winners weighed in
proportion; the hybrid distillation of the router; the diversity of winners.

`Official` follows the published code: a loop over experts with where and index_add; on competition
steps all experts on all tokens with gradients, stacked, and then the winners once more. The others are
what PyTorch offers to one who cares: affinities without stored activations, tokens sorted by expert
once, and per segment a product (`Segments`), one batched product of padded segments (`Padded`), or
one grouped product (`Grouped`).
"""

import torch
from torch import nn
from torch.nn import functional

BALANCE, DISTILLATION, THETA, DIVERSITY = 0.01, 0.001, 0.2, 0.005


def normals(*shape, scale):
    return nn.Parameter(torch.randn(*shape) * scale)


def switch_balance(scores, chosen):
    """E sum of f_e P_e."""
    experts = scores.shape[-1]
    shares = torch.bincount(chosen.reshape(-1), minlength=experts) / chosen.numel()
    return experts * (shares * scores.softmax(-1).mean(0)).sum()


def hybrid_distillation(scores, affinities, winners):
    """Mean square over all experts, and over winners again."""
    gap = (scores.softmax(-1) - affinities.detach().softmax(-1)).square()
    return gap.mean() + THETA * gap.gather(1, winners).mean()


def diversity(outputs):
    """Mean over tokens of the sum of cosines off the diagonal over K^2. outputs: tokens, K, width."""
    k = outputs.shape[1]
    products = outputs @ outputs.transpose(1, 2)
    lengths = products.diagonal(dim1=1, dim2=2).sqrt()
    cosines = products / (lengths[:, :, None] * lengths[:, None, :])
    return (cosines.sum((1, 2)) - k).mean() / k**2


def in_proportion(affinities):
    return affinities / affinities.sum(-1, keepdim=True)


class Official(nn.Module):
    def __init__(self, shape, competes):
        super().__init__()
        self.top_k, self.competes = shape.top_k, competes
        self.router = nn.Linear(shape.width, shape.experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(shape.width, shape.hidden, bias=False),
                nn.ReLU(),
                nn.Linear(shape.hidden, shape.width, bias=False),
            )
            for _ in range(shape.experts)
        )

    def mix(self, x, weights, chosen):
        y = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            tokens, places = torch.where(chosen == index)
            y.index_add_(0, tokens, weights[tokens, places, None] * expert(x[tokens]))
        return y

    def forward(self, x):
        scores = self.router(x)
        if not self.competes:
            best, chosen = scores.topk(self.top_k, dim=-1)
            return self.mix(x, best.softmax(-1), chosen), BALANCE * switch_balance(scores, chosen)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        affinities = functional.softplus(outputs).mean(-1)
        best, winners = affinities.topk(self.top_k, dim=-1)
        index = winners[:, :, None].expand(-1, -1, x.shape[-1])
        loss = DISTILLATION * hybrid_distillation(scores, affinities, winners)
        loss = loss + DIVERSITY * diversity(outputs.gather(1, index))
        return self.mix(x, in_proportion(best), winners), loss


class Sorted(nn.Module):
    """What the good layers share: one sort, experts on contiguous segments, one weighted sum."""

    def compile_parts(self):
        """All that does not pass counts through Python."""
        self.affinities = torch.compile(self.affinities)

    def __init__(self, shape, competes):
        super().__init__()
        self.top_k, self.competes, self.count = shape.top_k, competes, shape.experts
        self.router = normals(shape.width, shape.experts, scale=shape.width**-0.5)
        self.up = self.weights(shape.width, shape.hidden)
        self.down = self.weights(shape.hidden, shape.width)

    def weights(self, rows, columns):
        """One array for all experts."""
        return normals(self.count, rows, columns, scale=rows**-0.5)

    @torch.no_grad()
    def affinities(self, x):
        each = [
            functional.softplus((x @ up).relu_() @ down).mean(-1) for up, down in zip(self.up, self.down)
        ]
        return torch.stack(each, dim=1)

    def outputs(self, x, chosen):
        """E_e(x_t) of chosen pairs in token order. Result: tokens, K, width."""
        pairs = chosen.reshape(-1)
        order = pairs.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        counts = torch.bincount(pairs, minlength=self.count)
        out = self.of_segments(x.index_select(0, order // self.top_k), counts)
        return out.index_select(0, place).reshape(len(x), self.top_k, -1)

    def forward(self, x):
        scores = x @ self.router
        if not self.competes:
            best, chosen = scores.topk(self.top_k, dim=-1)
            weights, loss = best.softmax(-1), BALANCE * switch_balance(scores, chosen)
            outputs = self.outputs(x, chosen)
        else:
            affinities = self.affinities(x)
            winners = affinities.topk(self.top_k, dim=-1).indices
            outputs = self.outputs(x, winners)
            # Again with gradient, of the winners alone.
            weights = in_proportion(functional.softplus(outputs).mean(-1))
            loss = DISTILLATION * hybrid_distillation(scores, affinities, winners)
            loss = loss + DIVERSITY * diversity(outputs)
        return (weights[:, :, None] * outputs).sum(1), loss


class Segments(Sorted):
    """A product per expert; an array per expert, so that no gradient is scattered into a larger one."""

    def weights(self, rows, columns):
        return nn.ParameterList(normals(rows, columns, scale=rows**-0.5) for _ in range(self.count))

    def of_segments(self, x, counts):
        parts = x.split(counts.tolist())
        return torch.cat([(part @ up).relu_() @ down for part, up, down in zip(parts, self.up, self.down)])


class Padded(Sorted):
    """Segments padded to the longest."""

    def of_segments(self, x, counts):
        longest = int(counts.max())
        starts = counts.cumsum(0) - counts
        expert = torch.repeat_interleave(counts)
        slots = torch.arange(len(x)) + expert * longest - starts[expert]
        padded = x.new_zeros(self.count * longest, x.shape[1]).index_copy(0, slots, x)
        out = torch.bmm(torch.bmm(padded.view(self.count, longest, -1), self.up).relu_(), self.down)
        return out.view(self.count * longest, -1).index_select(0, slots)


class Grouped(Sorted):
    """The grouped product; no count goes through Python, so that all of it compiles."""

    def compile_parts(self):
        self.compile()

    def of_segments(self, x, counts):
        ends = counts.cumsum(0, dtype=torch.int32)
        hidden = functional.grouped_mm(x, self.up, offs=ends).relu()
        return functional.grouped_mm(hidden, self.down, offs=ends)


class Block(nn.Module):
    """x + attention(norm(x)), then x + layer(norm(x)); layer norm with a gain, rotary positions."""

    def __init__(self, shape, layer):
        super().__init__()
        self.sequences, self.length, self.heads = shape.sequences, shape.length, shape.heads
        width = shape.width
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.layer_norm = nn.LayerNorm(width, bias=False)
        self.layer = layer
        channels = width // shape.heads
        angles = torch.arange(shape.length)[:, None] * 10_000.0 ** (-torch.arange(0, channels, 2) / channels)
        self.register_buffer("cosine", angles.cos().repeat(1, 2))
        self.register_buffer("sine", torch.cat([-angles.sin(), angles.sin()], dim=1))

    def compile_parts(self):
        self.attention = torch.compile(self.attention)
        self.layer.compile_parts()

    def turned(self, x):
        return x * self.cosine + x.roll(x.shape[-1] // 2, dims=-1) * self.sine

    def attention(self, x):
        qkv = self.qkv(self.attention_norm(x)).view(self.sequences, self.length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = self.turned(query), self.turned(key)
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return x + self.out(out.transpose(1, 2).reshape(x.shape))

    def forward(self, x):
        x = self.attention(x)
        y, loss = self.layer(self.layer_norm(x))
        return x + y, loss
