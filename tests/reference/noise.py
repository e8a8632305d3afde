"""The noise of the noisy router, drawn as the trainer draws it, from its description alone.

A stream of random numbers has a name: seed, cell (the layer), replicate (the step) and purpose. The head
of SHA-256 over these, as little-endian 64-bit words with the cell as its length and its bytes, is the key
of Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). Counter (token, expert) gives four words of 32 bits:
two uniforms of 53 bits, one normal (Box, Muller 1958).
"""

import hashlib
import math

import torch

NOISE = 9
LOW = 0xFFFFFFFF


def key(seed, cell, replicate, purpose):
    def word(number):
        return number.to_bytes(8, "little")

    name = word(seed) + word(len(cell)) + cell.encode() + word(replicate) + word(purpose)
    head = hashlib.sha256(name).digest()
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[4:8], "little")


def philox(counter, key):
    a, b, c, d = counter
    first, second = key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ first, right & LOW, (left >> 32) ^ d ^ second, left & LOW
        first, second = first + 0x9E3779B9 & LOW, second + 0xBB67AE85 & LOW
    return a, b, c, d


def uniform(low, high):
    return min((((high << 32 | low) >> 11) + 0.5) * 2.0**-53, 1 - 2.0**-53)


def normal(key, sample, draw):
    words = philox((sample & LOW, sample >> 32, draw & LOW, draw >> 32), key)
    return math.sqrt(-2 * math.log(uniform(*words[:2]))) * math.cos(math.tau * uniform(*words[2:]))


def of_layer(layer, tokens, experts):
    """Noise of the first step of seed 1, [tokens, experts] in float64."""
    own = key(1, f"layers.{layer}", 0, NOISE)
    rows = [[normal(own, token, expert) for expert in range(experts)] for token in range(tokens)]
    return torch.tensor(rows, dtype=torch.float64)
