"""Whether all styles of layers.py compute the same layer: python check.py

Fails if outputs, losses or gradients differ by more than 1e-4 of their largest entry.
"""

import sys
import types

import torch

import layers

SHAPE = types.SimpleNamespace(width=32, experts=4, hidden=48, top_k=2)


def set_weights(layer, router, up, down):
    with torch.no_grad():
        if isinstance(layer, layers.Official):
            layer.router.weight.copy_(router.T)
            for expert, a, b in zip(layer.experts, up, down):
                expert[0].weight.copy_(a.T)
                expert[2].weight.copy_(b.T)
            return
        layer.router.copy_(router)
        for own, given in [(layer.up, up), (layer.down, down)]:
            for to, value in zip(own, given):
                to.copy_(value)


def results(style, competes, x, upstream, weights):
    """Output, loss, and the gradients of x, the router and the first expert."""
    layer = style(SHAPE, competes)
    set_weights(layer, *weights)
    x = x.clone().requires_grad_()
    y, loss = layer(x)
    torch.autograd.backward([y, 100 * loss], [upstream, torch.ones_like(loss)])
    if style is layers.Official:
        own = [layer.router.weight.grad.T, layer.experts[0][0].weight.grad.T]
    elif style is layers.Segments:
        own = [layer.router.grad, layer.up[0].grad]
    else:
        own = [layer.router.grad, layer.up.grad[0]]
    return [y.detach(), loss.detach(), x.grad, *own]


def main():
    torch.manual_seed(1)
    x, upstream = torch.randn(64, SHAPE.width), torch.randn(64, SHAPE.width)
    weights = [
        torch.randn(SHAPE.width, SHAPE.experts),
        torch.randn(SHAPE.experts, SHAPE.width, SHAPE.hidden) / 5,
        torch.randn(SHAPE.experts, SHAPE.hidden, SHAPE.width) / 5,
    ]
    worst = 0.0
    for competes in (False, True):
        first = results(layers.Official, competes, x, upstream, weights)
        for style in (layers.Segments, layers.Padded, layers.Grouped):
            for a, b in zip(first, results(style, competes, x, upstream, weights)):
                worst = max(worst, ((a - b).abs().max() / a.abs().max()).item())
    print(f"largest relative difference {worst:.1e}")
    return int(not worst < 1e-4)


if __name__ == "__main__":
    sys.exit(main())
