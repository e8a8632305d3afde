"""A PyTorch peer in a process of its own, on CPU in float32: python peers.py [options] NAME ...

A NAME is STYLE-PART-STEP:

    STYLE   official | segments | padded | grouped, of layers.py; the last three also with "+", what
            can be compiled by torch.compile; or good: the fastest of the six at the given shape
    PART    layer (forward and backward) | block (with attention; forward, backward, AdamW)
    STEP    routed | competition

All are made and warmed up first, then one line of JSON says which they are. Then every line of standard
input is answered by one line of JSON, so that a caller can take turns with its own steps:

    step NAME N   {"name": NAME, "seconds": [of each of N steps]}
    memory        {"peak_bytes": largest resident size of this process so far}

The end of the input ends the process. For a memory figure of one style, name that one alone, without
good, which tries them all.
"""

import argparse
import json
import resource
import sys
import time

import torch

import layers

STYLES = {
    "official": layers.Official,
    "segments": layers.Segments,
    "padded": layers.Padded,
    "grouped": layers.Grouped,
}
GOOD = ["segments", "segments+", "padded", "padded+", "grouped", "grouped+"]


class Peer:
    """Steps of one layer or block on random input, with a random gradient of its output."""

    def __init__(self, name, shape):
        self.name = name
        style, part, step = name.split("-")
        torch.manual_seed(1)
        layer = STYLES[style.rstrip("+")](shape, step == "competition")
        module = layer if part == "layer" else layers.Block(shape, layer)
        self.parameters = list(module.parameters())
        self.module = module
        if style.endswith("+"):
            module.compile_parts()
        tokens = shape.sequences * shape.length
        self.x = torch.randn(tokens, shape.width, requires_grad=part == "layer")
        self.upstream = torch.randn(tokens, shape.width) / tokens
        self.optimiser = None
        if part == "block":
            # The published code takes the default, a loop over parameters.
            fused = None if style == "official" else True
            self.optimiser = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.1, fused=fused)

    def step(self):
        y, loss = self.module(self.x)
        torch.autograd.backward([y, loss], [self.upstream, torch.ones_like(loss)])
        if self.optimiser:
            self.optimiser.step()
        self.x.grad = None
        for parameter in self.parameters:
            parameter.grad = None

    def timed(self, steps):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return seconds


def fastest(name, shape, trials):
    """The best of the good styles, and the least seconds of each."""
    _, rest = name.split("-", 1)
    candidates = [Peer(f"{style}-{rest}", shape) for style in GOOD]
    for peer in candidates:
        peer.timed(3)
    least = {peer.name: float("inf") for peer in candidates}
    for _ in range(trials):
        for peer in candidates:
            least[peer.name] = min(least[peer.name], *peer.timed(1))
    return min(candidates, key=lambda peer: least[peer.name]), least


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("names", nargs="+", metavar="NAME")
    sizes = {
        "sequences": 8,
        "length": 128,
        "width": 128,
        "heads": 4,
        "experts": 8,
        "top-k": 2,
        "hidden": 512,
        "threads": 2,
        "warm-up": 5,
        "trials": 10,
    }
    for size, default in sizes.items():
        arguments.add_argument(f"--{size}", type=int, default=default)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    peers, chosen, trials = {}, {}, {}
    for name in options.names:
        if name.startswith("good-"):
            peers[name], trials[name] = fastest(name, options, options.trials)
        else:
            peers[name] = Peer(name, options)
        chosen[name] = peers[name].name
        peers[name].timed(options.warm_up)
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "peers": chosen, "trials": trials}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["step", name, count]:
                answer = {"name": name, "seconds": peers[name].timed(int(count))}
            case ["memory"]:
                answer = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
            case _:
                sys.exit(f"unknown request: {line.strip()}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
