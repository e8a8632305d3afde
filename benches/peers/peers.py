"""One Python peer in a process of its own: python peers.py PEER FILE K

PEER is numpy_em, scipy_lbfgs or jax_lbfgs. The process reads the data, makes the start, compiles what
must be compiled and prints one line about itself; then each line of standard input, a number of fits,
is answered by one line of JSON with the CPU seconds of every fit.
"""

import json
import platform
import sys
import time

LOG_TWO_PI = 1.8378770664093453


def read(path, experts):
    """Design matrix with the constant first, responses, and the start made from the partition."""
    with open(path) as file:
        names = file.readline().strip().split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    inputs = table[:, [name.startswith("x") for name in names]]
    design = np.column_stack([np.ones(len(table)), inputs])
    response = table[:, names.index("y")]
    partition = table[:, names.index("z0")].astype(int)
    return design, response, start(design, response, partition, experts)


def start(design, response, partition, experts):
    """Least squares in each part, the part's own residual deviation, equal gate weights."""
    gate = np.zeros((experts, design.shape[1]))
    coefficients = np.zeros_like(gate)
    deviations = np.zeros(experts)
    for i in range(experts):
        part = partition == i
        coefficients[i] = np.linalg.lstsq(design[part], response[part], rcond=None)[0]
        deviations[i] = np.sqrt(np.mean((response[part] - design[part] @ coefficients[i]) ** 2))
    return gate, coefficients, deviations


def log_sum_exp(values):
    """log sum exp along each row, as a column."""
    largest = values.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=1, keepdims=True))


def log_weights(design, gate):
    """Logarithms of the softmax weights (n, K)."""
    scores = design @ gate.T
    return scores - log_sum_exp(scores)


def expectation(design, response, gate, coefficients, deviations):
    """Log-likelihood, responsibilities, weights and residuals."""
    log_weight = log_weights(design, gate)
    residuals = response[:, None] - design @ coefficients.T
    log_density = -0.5 * LOG_TWO_PI - np.log(deviations) - 0.5 * (residuals / deviations) ** 2
    joint = log_weight + log_density
    total = log_sum_exp(joint)
    return total.sum(), np.exp(joint - total), np.exp(log_weight), residuals


def newton_step(design, products, gate, responsibilities):
    """One Newton step for the gate, halved until the multinomial likelihood does not fall."""
    experts, size = gate.shape
    log_weight = log_weights(design, gate)
    weights = np.exp(log_weight)
    score = (responsibilities - weights)[:, :-1].T @ design
    information = np.zeros((experts - 1, size, experts - 1, size))
    for i in range(experts - 1):
        for j in range(experts - 1):
            factor = weights[:, i] * ((i == j) - weights[:, j])
            information[i, :, j, :] = (factor @ products).reshape(size, size)
    free = (experts - 1) * size
    step = np.linalg.solve(information.reshape(free, free) + 1e-9 * np.eye(free), score.ravel())
    step = np.vstack([step.reshape(experts - 1, size), np.zeros(size)])
    before = (responsibilities * log_weight).sum()
    for _ in range(20):
        if (responsibilities * log_weights(design, gate + step)).sum() >= before:
            return gate + step
        step /= 2
    return gate


def numpy_em(design, response, start):
    """Expectation maximisation; stops when the log-likelihood changes by less than 1e-10 of itself."""
    size = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    moments = design * response[:, None]

    def fit():
        gate, coefficients, deviations = start
        last = -np.inf
        for iteration in range(3000):
            value, responsibilities, _, _ = expectation(design, response, gate, coefficients, deviations)
            if abs(value - last) <= 1e-10 * (abs(value) + 1):
                break
            last = value
            gram = (responsibilities.T @ products).reshape(-1, size, size)
            coefficients = np.linalg.solve(gram, (responsibilities.T @ moments)[:, :, None])[:, :, 0]
            residuals = response[:, None] - design @ coefficients.T
            squares = (responsibilities * residuals**2).sum(axis=0)
            deviations = np.sqrt(squares / responsibilities.sum(axis=0))
            gate = newton_step(design, products, gate, responsibilities)
        return value, iteration

    return fit


def pack(gate, coefficients, deviations):
    """Free gate coefficients, expert coefficients and log-deviations in one vector."""
    return np.concatenate([gate[:-1].ravel(), coefficients.ravel(), np.log(deviations)])


def scipy_lbfgs(design, response, start):
    """SciPy's L-BFGS-B on the log-likelihood and its gradient in NumPy."""
    from scipy.optimize import minimize

    experts, size = start[0].shape
    free = (experts - 1) * size

    def objective(packed):
        gate = np.vstack([packed[:free].reshape(experts - 1, size), np.zeros(size)])
        coefficients = packed[free:-experts].reshape(experts, size)
        deviations = np.exp(packed[-experts:])
        value, responsibilities, weights, residuals = expectation(
            design, response, gate, coefficients, deviations
        )
        scaled = residuals / deviations
        by_gate = (responsibilities - weights)[:, :-1].T @ design
        by_mean = (responsibilities * scaled / deviations).T @ design
        by_deviation = (responsibilities * (scaled**2 - 1)).sum(axis=0)
        return -value, -np.concatenate([by_gate.ravel(), by_mean.ravel(), by_deviation])

    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-6, "maxcor": 20}

    def fit():
        found = minimize(objective, pack(*start), jac=True, method="L-BFGS-B", options=options)
        return -found.fun, found.nit

    return fit


def jax_lbfgs(design, response, start):
    """SciPy's L-BFGS-B on the mean log-likelihood and its gradient compiled by JAX, in double precision."""
    import jax
    import jax.numpy as jnp
    from scipy.optimize import minimize

    jax.config.update("jax_enable_x64", True)
    experts, size = start[0].shape
    free = (experts - 1) * size
    rows = len(design)
    design, response = jnp.asarray(design), jnp.asarray(response)

    def objective(packed):
        gate = jnp.vstack([packed[:free].reshape(experts - 1, size), jnp.zeros((1, size))])
        coefficients = packed[free:-experts].reshape(experts, size)
        log_deviations = packed[-experts:]
        scaled = (response[:, None] - design @ coefficients.T) * jnp.exp(-log_deviations)
        log_density = -0.5 * scaled**2 - log_deviations - 0.5 * LOG_TWO_PI
        joint = jax.nn.log_softmax(design @ gate.T, axis=1) + log_density
        return -jax.scipy.special.logsumexp(joint, axis=1).sum() / rows

    compiled = jax.jit(jax.value_and_grad(objective))
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 20}

    def evaluate(packed):
        value, gradient = compiled(packed)
        return float(value), np.asarray(gradient, dtype=float)

    evaluate(pack(*start))

    def fit():
        found = minimize(evaluate, pack(*start), jac=True, method="L-BFGS-B", options=options)
        return -found.fun * rows, found.nit

    return fit


PEERS = {
    "numpy_em": (numpy_em, ["numpy"]),
    "scipy_lbfgs": (scipy_lbfgs, ["numpy", "scipy"]),
    "jax_lbfgs": (jax_lbfgs, ["numpy", "scipy", "jax"]),
}


def say(**fields):
    print(json.dumps(fields), flush=True)


def serve(peer, path, experts):
    """Prepares the peer and answers requests until standard input ends."""
    prepare, packages = PEERS[peer]
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            say(missing=f"Python package {name}")
            return
    began = time.perf_counter()
    fit = prepare(*read(path, experts))
    say(versions=versions, preparation_seconds=time.perf_counter() - began)
    for line in sys.stdin:
        cpu_seconds, wall_seconds = [], []
        for _ in range(int(line)):
            cpu, wall = time.process_time(), time.perf_counter()
            log_likelihood, iterations = fit()
            cpu_seconds.append(time.process_time() - cpu)
            wall_seconds.append(time.perf_counter() - wall)
        say(
            cpu_seconds=cpu_seconds,
            wall_seconds=wall_seconds,
            log_likelihood=float(log_likelihood),
            iterations=int(iterations),
        )


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in PEERS:
        sys.exit(f"usage: peers.py {'|'.join(PEERS)} FILE K")
    try:
        import numpy as np
    except ImportError:
        say(missing="Python package numpy")
        sys.exit()
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
