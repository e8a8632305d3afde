"""The synthetic cells: data from mixtures of linear Gaussian experts behind a softmax gate.

Every cell has its own seed of numpy's PCG64, so its file is the same on every machine.
"""

import itertools

import numpy as np

COUNTS = (1_000, 10_000, 100_000)

# By experts K and inputs d: gate and expert coefficients, the constant first, and deviations.
TRUTHS = {
    (2, 1): {
        "gate": [[0.5, 2.0], [0.0, 0.0]],
        "expert": [[1.0, 2.0], [-1.0, -1.0]],
        "deviation": [0.5, 0.8],
    },
    (2, 2): {
        "gate": [[0.3, 2.0, -1.0], [0.0, 0.0, 0.0]],
        "expert": [[1.0, 2.0, -1.0], [-1.0, -1.0, 1.0]],
        "deviation": [0.5, 0.8],
    },
    (3, 1): {
        "gate": [[0.5, 3.0], [0.3, -3.0], [0.0, 0.0]],
        "expert": [[1.0, 2.0], [-2.0, -1.0], [3.0, 0.5]],
        "deviation": [0.5, 0.7, 0.4],
    },
    (3, 2): {
        "gate": [[0.5, 2.5, 1.0], [0.3, -2.5, 1.0], [0.0, 0.0, 0.0]],
        "expert": [[1.0, 2.0, -1.0], [-2.0, -1.0, 1.0], [3.0, 0.5, 0.5]],
        "deviation": [0.5, 0.7, 0.4],
    },
}

# Share of rows whose part in the starting partition is the expert that drew them.
KEPT = 0.6


def every_cell():
    """All (n, K, d), the small ones first."""
    return [(n, k, d) for n, (k, d) in itertools.product(COUNTS, TRUTHS)]


def draw(n, k, d):
    """Inputs (n, d), responses, true labels and starting partition of a cell."""
    generator = np.random.default_rng(1000 * k + 10 * d + round(np.log10(n)))
    gate, expert, deviation = (np.array(TRUTHS[k, d][name]) for name in ("gate", "expert", "deviation"))
    inputs = generator.normal(size=(n, d))
    design = np.column_stack([np.ones(n), inputs])
    scores = design @ gate.T
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    labels = (generator.random(n)[:, None] > np.cumsum(weights, axis=1)).sum(axis=1)
    noise = generator.normal(size=n)
    responses = (design * expert[labels]).sum(axis=1) + deviation[labels] * noise
    kept = generator.random(n) < KEPT
    partition = np.where(kept, labels, generator.integers(0, k, n))
    return inputs, responses, labels, partition


def write(folder, n, k, d):
    """Writes the cell's file, with columns x1 .. xd, y, z (label) and z0 (partition), and returns its path."""
    inputs, responses, labels, partition = draw(n, k, d)
    path = folder / f"K{k}_d{d}_n{n}.csv"
    names = [f"x{j + 1}" for j in range(d)] + ["y", "z", "z0"]
    np.savetxt(
        path,
        np.column_stack([inputs, responses, labels, partition]),
        delimiter=",",
        header=",".join(names),
        comments="",
        fmt=["%.10g"] * (d + 1) + ["%d"] * 2,
    )
    return path
