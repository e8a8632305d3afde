"""Reference values for the Rust crate, computed by other means.

Writes, beside this file,

    models/*.toml   the model files the values refer to
    golden.json     the values

and is written from the mathematics alone: it shares no code with the crate.

    pip install -r tests/golden/requirements.txt && python tests/golden/make.py

takes a few minutes. Python 3.11 or newer. Every check made on the way is an
`assert`, so a run that ends has passed them.

The model. A conditional density of y given x in R^d,

    p(y|x) = sum_i w_i(x) N(y; m_i(x), v_i),    m_i = scale_i act_i(slope_i.x + intercept_i),

where w is the softmax of log-weights l_i over the K selected experts:

    gate                       log-weight l_i                selection score
    competition, softmax       kappa rho(m_i) + bias_i       rho(m_i)
    competition, normalised    log rho(m_i) + bias_i         rho(m_i)
    softmax                    u_i = gate_slope_i.x          u_i, or gate_slope_i.x
                                     + gate_intercept_i        if selection = "slope"
    sigmoid                    log sigmoid(u_i)              the same
    constant                   bias_i                        bias_i

with rho(t) = |t|, log(1+e^t) or t^2/2. The K largest scores are selected, ties
going to the lower index. A number in a model file or a point stands for the
double nearest to it, and the values belong to exactly those doubles.

golden.json holds

    density   log p(y|x) in 60-digit arithmetic, rounded to 17 digits. With each
              value comes its `condition`, the first-order change of the value
              when every input and every intermediate quantity moves by a unit
              relative amount: a sound double computation errs by a small
              multiple of 2^-53 * condition.
    score     d log p / d parameter at the same precision. The coordinates are
              log-variances instead of variances, one for all if they are shared;
              scales only where the file gives them; gate parameters of all
              experts but the last, of all experts for the sigmoid gate.
    distance  E h, E h^2, E V and E KL(first || second) over the input law of
              the first model, h^2 = 1/2 int (sqrt p - sqrt q)^2 dy and
              V = 1/2 int |p - q| dy. `accuracy` is the relative change when
              every panel in x is halved and the rules in y are doubled,
              rounded up to a power of ten.
    philox    draws of the counter-based random streams.
    fisher    E[score score'], with the change on doubling, relative to
              sqrt(I_ii I_jj), as `accuracy`.

The distances and the Fisher matrices are computed in double precision, from
model quantities computed in mpmath, and carry 15 digits.
"""

import hashlib
import itertools
import json
import math
import struct
import tomllib
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mp, mpf

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
DIGITS = 60
STEP = mpf(10) ** -20  # of central differences: their relative error is of order STEP^2

mp.dps = DIGITS


# ---------------------------------------------------------------- Philox ----

MASK = 0xFFFFFFFF


def philox4x32_10(counter, key):
    """Ten rounds of Philox4x32 (Salmon et al., SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a = 0xD2511F53 * c0
        b = 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK, (a >> 32) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def check_philox():
    """The known-answer vectors of Random123."""
    known = [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    for row in known:
        counter, key, answer = ([int(word, 16) for word in part.split()] for part in row)
        assert list(philox4x32_10(counter, key)) == answer


def purpose_code(purpose):
    if purpose.startswith("Start("):
        return 2 | int(purpose[6:-1]) << 8
    return {"Data": 1, "Bootstrap": 3, "Quadrature": 4}[purpose]


def stream_key(seed, cell, replicate, purpose):
    name = cell.encode()
    digest = hashlib.sha256(
        struct.pack("<QQ", seed, len(name)) + name
        + struct.pack("<QQ", replicate, purpose_code(purpose))
    ).digest()
    return struct.unpack("<II", digest[:8])


def uniform_from_bits(bits):
    """(bits + 1/2) 2^-53 for 53 bits, to the nearest double, below one."""
    return min(float(Fraction(2 * bits + 1, 2**54)), 1 - 2.0**-53)


def uniforms(key, sample, draw):
    counter = (sample & MASK, sample >> 32, draw & MASK, draw >> 32)
    w0, w1, w2, w3 = philox4x32_10(counter, key)
    return [uniform_from_bits((high << 32 | low) >> 11) for high, low in ((w1, w0), (w3, w2))]


def philox_section():
    check_philox()
    assert uniform_from_bits(2**53 - 1) == 1 - 2.0**-53
    assert uniform_from_bits(0) == 2.0**-54
    cases = [
        (20260101, "n=1000", 17, "Data", 5, 2),
        (20260101, "n=1000", 17, "Start(0)", 5, 2),
        (20260101, "n=1000", 17, "Start(3)", 0, 0),
        (20260101, "n=1000", 17, "Bootstrap", 0, 1),
        (20260101, "n=1000", 17, "Quadrature", 1, 0),
        (0, "", 0, "Data", 0, 0),
        (1, "κ=½, n=10³", 2, "Data", 3, 4),
        (2**64 - 1, "n=1000", 2**64 - 1, "Start(65535)", 2**64 - 1, 2**64 - 1),
        (20260101, "n=1000", 17, "Data", 2**32, 0),
        (20260101, "n=1000", 17, "Data", 5, 2**32 + 2),
    ]
    rows = []
    for seed, cell, replicate, purpose, sample, draw in cases:
        pair = uniforms(stream_key(seed, cell, replicate, purpose), sample, draw)
        first, second = map(mpf, pair)
        normal = mp.sqrt(-2 * mp.log(first)) * mp.cos(2 * mp.pi * second)
        rows.append({
            "seed": seed, "cell": cell, "replicate": replicate,
            "purpose": purpose, "purpose_code": purpose_code(purpose),
            "sample": sample, "draw": draw, "uniforms": pair, "normal": normal,
        })
    return rows


class Draws:
    """Repeatable numbers for the parameters and points below, one stream per name."""

    def __init__(self, name):
        self.key = stream_key(0, name, 0, "Data")
        self.count = 0

    def number(self, low, high, decimals=2):
        """A non-zero decimal fraction in [low, high]."""
        while True:
            self.count += 1
            value = round(low + (high - low) * uniforms(self.key, self.count, 0)[0], decimals)
            if value:
                return value

    def numbers(self, count, low, high, decimals=2):
        return [self.number(low, high, decimals) for _ in range(count)]

    def signed(self, low, high):
        return math.copysign(self.number(low, high), self.number(-1, 1))


# ----------------------------------------------------------- model files ----

def toml_value(value):
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return repr(value)


def to_toml(model):
    lines = [f'variance = "{model["variance"]}"', ""] if "variance" in model else []
    tables = [("[input]", model["input"]), ("[gate]", model["gate"])]
    tables += [("[[expert]]", expert) for expert in model["expert"]]
    for header, table in tables:
        lines += [header, *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines[:-1]) + "\n"


class Library:
    """The model files written so far."""

    def __init__(self):
        self.models = {}

    def add(self, name, model):
        assert name not in self.models, name
        self.models[name] = model
        MODELS.mkdir(exist_ok=True)
        path = MODELS / f"{name}.toml"
        path.write_text(to_toml(model), encoding="utf-8", newline="\n")
        assert tomllib.loads(path.read_text(encoding="utf-8")) == model, name
        return name


def model_path(name):
    return f"models/{name}.toml"


def expert(kind, slope, intercept, variance, **rest):
    table = {"kind": kind, "slope": slope, "intercept": intercept}
    if "scale" in rest:
        table["scale"] = rest.pop("scale")
    return {**table, "variance": variance, **rest}


def drawn_model(name, gate, kinds, dimension, law="uniform", bias=False, shared=False, steep=1.0):
    """A model with parameters drawn by name. A kind ending in "*" gets a scale."""
    draws = Draws(name)
    width = steep / max(1.0, math.sqrt(dimension) / 1.5)
    common = draws.number(0.2, 0.8)
    experts = []
    for kind in kinds:
        rest = {"scale": draws.signed(0.7, 2.0)} if kind.endswith("*") else {}
        table = expert(
            kind.rstrip("*"), draws.numbers(dimension, -2 * width, 2 * width),
            draws.number(-1, 1), common if shared else draws.number(0.2, 0.8), **rest)
        if gate["kind"] in ("softmax", "sigmoid"):
            table["gate_slope"] = draws.numbers(dimension, -2 * width, 2 * width)
            table["gate_intercept"] = draws.number(-1, 1)
        elif bias or gate["kind"] == "constant":
            table["bias"] = draws.number(-0.6, 0.6)
        experts.append(table)
    if law == "uniform":
        low = draws.numbers(dimension, -1.5, -0.5)
        inputs = {"law": law, "low": low, "high": draws.numbers(dimension, 0.5, 1.5)}
    elif law == "normal":
        mean = draws.numbers(dimension, -0.5, 0.5)
        inputs = {"law": law, "mean": mean, "sd": draws.numbers(dimension, 0.4, 1.2),
                  "truncation": draws.number(1.5, 3.0)}
    else:
        inputs = {"law": law, "points": [draws.numbers(dimension, -1, 1) for _ in range(6)]}
    model = {"variance": "shared"} if shared else {}
    return {**model, "input": inputs, "gate": gate, "expert": experts}


def competition(response, weights="softmax", **rest):
    return {"kind": "competition", "response": response, "weights": weights, **rest}


# --------------------------------------------------- the density in mpmath ----

ACTIVATIONS = {
    "linear": lambda t: t,
    "tanh": mp.tanh,
    "sigmoid": lambda t: 1 / (1 + mp.exp(-t)),
    "relu": lambda t: max(t, mpf(0)),
    "gelu": lambda t: t * mp.erfc(-t / mp.sqrt(2)) / 2,
}

RESPONSES = {
    "absolute": abs,
    "softplus": lambda t: mp.log1p(mp.exp(t)),
    "square": lambda t: t * t / 2,
}

PARTS = ("slope", "intercept", "scale", "bias", "gate_slope", "gate_intercept")


def coordinates(model):
    """The parameters as a flat dictionary of exact values, named as in the score section."""
    values = {}
    for i, table in enumerate(model["expert"]):
        for part in PARTS:
            entry = table.get(part)
            if isinstance(entry, list):
                values.update({f"{part}[{i}][{j}]": mpf(e) for j, e in enumerate(entry)})
            elif entry is not None:
                values[f"{part}[{i}]"] = mpf(entry)
        if i == 0 or model.get("variance") != "shared":
            values[f"log_variance[{i}]"] = mp.log(mpf(table["variance"]))
        else:
            assert table["variance"] == model["expert"][0]["variance"]
    return values


def linear_form(values, part, offset, i, x):
    return mp.fsum(values[f"{part}[{i}][{j}]"] * e for j, e in enumerate(x)) + values[f"{offset}[{i}]"]


def means(model, values, x):
    return [
        values.get(f"scale[{i}]", mpf(1))
        * ACTIVATIONS[table["kind"]](linear_form(values, "slope", "intercept", i, x))
        for i, table in enumerate(model["expert"])
    ]


def selection_scores(model, values, x, mean):
    gate, count = model["gate"], len(mean)
    if gate["kind"] == "competition":
        return [RESPONSES[gate["response"]](m) for m in mean]
    if gate["kind"] == "constant":
        return [values[f"bias[{i}]"] for i in range(count)]
    scores = [linear_form(values, "gate_slope", "gate_intercept", i, x) for i in range(count)]
    if gate.get("selection", "score") == "slope":
        scores = [s - values[f"gate_intercept[{i}]"] for i, s in enumerate(scores)]
    return scores


def select(model, values, x):
    """The selected experts, in increasing order."""
    count = len(model["expert"])
    top_k = model["gate"].get("top_k", count)
    if top_k == count:
        return tuple(range(count))
    scores = selection_scores(model, values, x, means(model, values, x))
    ranked = sorted(range(count), key=lambda i: (-scores[i], i))
    last, first_out = scores[ranked[top_k - 1]], scores[ranked[top_k]]
    # Rounding must not be able to change the selection: a clear gap or an exact tie.
    assert last == first_out or last - first_out > mpf(10) ** -14 * (abs(last) + abs(first_out))
    return tuple(sorted(ranked[:top_k]))


def log_weights(model, values, x, mean):
    """The l_i, before normalisation."""
    gate = model["gate"]
    result = []
    for i, m in enumerate(mean):
        if gate["kind"] == "competition":
            rho = RESPONSES[gate["response"]](m)
            if gate["weights"] == "normalised":
                own = mp.log(rho) if rho else mp.ninf
            else:
                own = mpf(gate.get("kappa", 1.0)) * rho
            own += values.get(f"bias[{i}]", 0)
        elif gate["kind"] == "constant":
            own = values[f"bias[{i}]"]
        else:
            own = linear_form(values, "gate_slope", "gate_intercept", i, x)
            if gate["kind"] == "sigmoid":
                own = -mp.log1p(mp.exp(-own))
        result.append(own)
    return result


def variances(model, values):
    shared = model.get("variance") == "shared"
    return [mp.exp(values[f"log_variance[{0 if shared else i}]"]) for i in range(len(model["expert"]))]


def mixture(mean, own, variance, selected, y):
    """log p from means, log-weights and variances, with the terms of its sum."""
    top = max(own[i] for i in selected)
    assert top != mp.ninf, "every selected weight is zero"
    weight = {i: mp.exp(own[i] - top) for i in selected}
    total = mp.fsum(weight.values())
    term = {
        i: w / total * mp.exp(-((y - mean[i]) ** 2) / (2 * variance[i])) / mp.sqrt(2 * mp.pi * variance[i])
        for i, w in weight.items()
    }
    return mp.log(mp.fsum(term.values())), weight, total, term


def log_density(model, values, x, y, selected):
    mean = means(model, values, x)
    own = log_weights(model, values, x, mean)
    return mixture(mean, own, variances(model, values), selected, y)[0]


def exact(vector):
    return [mpf(e) for e in vector]


def log_density_at(model, x, y):
    values, x = coordinates(model), exact(x)
    return log_density(model, values, x, mpf(y), select(model, values, x))


def central(function, at, step=STEP):
    return (function(at + step) - function(at - step)) / (2 * step)


def condition(model, x, y):
    """See the head of this file. The selection is held fixed."""
    values, x, y = coordinates(model), exact(x), mpf(y)
    selected = select(model, values, x)
    one = mpf(1)
    total = mpf(0)
    # Parameters and x.
    for name in values:
        if name.startswith("log_variance"):
            change = central(lambda e: log_density(model, {**values, name: values[name] + e}, x, y, selected), mpf(0))
        else:
            change = central(lambda e: log_density(model, {**values, name: values[name] * e}, x, y, selected), one)
        total += abs(change)
    for j in range(len(x)):
        total += abs(central(
            lambda e: log_density(model, values, [v * e if k == j else v for k, v in enumerate(x)], y, selected), one))
    # Means, log-weights, y, and the terms of the sum.
    mean = means(model, values, x)
    own = log_weights(model, values, x, mean)
    variance = variances(model, values)
    value, weight, weight_sum, term = mixture(mean, own, variance, selected, y)
    density = mp.fsum(term.values())
    for i in selected:
        if not weight[i]:
            continue
        share = term[i] / density
        error = y - mean[i]
        total += abs(share * error / variance[i]) * (abs(mean[i]) + abs(y))
        total += abs((share - weight[i] / weight_sum) * own[i])
        total += share * (abs(mp.log(weight[i] / weight_sum)) + abs(mp.log(2 * mp.pi * variance[i])) / 2
                          + error**2 / (2 * variance[i]))
    return total + abs(value)


def score_names(model):
    count = len(model["expert"])
    free = count if model["gate"]["kind"] == "sigmoid" else count - 1
    def kept(name):
        part, i = name.split("[")[0], int(name.split("[")[1].rstrip("]"))
        return part not in ("bias", "gate_slope", "gate_intercept") or i < free
    return [name for name in coordinates(model) if kept(name)]


def score(model, x, y):
    values, x, y = coordinates(model), exact(x), mpf(y)
    selected = select(model, values, x)
    return {
        name: central(lambda e: log_density(model, {**values, name: e}, x, y, selected), values[name])
        for name in score_names(model)
    }


# -------------------------------------------------------- density section ----

def density_models(library):
    """One model for every combination of the pieces, and the awkward ones."""
    names = []

    def add(name, model):
        names.append(library.add(name, model))

    # Competition: response x weights x bias, with the expert kinds and top_k in rotation.
    kinds = ["linear", "tanh", "tanh*", "sigmoid", "sigmoid*", "relu", "relu*", "gelu", "gelu*"]
    modes = {"softmax": {}, "kappa": {"kappa": 2.5}, "normalised": {"weights": "normalised"}}
    table = itertools.product(("softplus", "absolute", "square"), modes.items(), (False, True))
    for index, (response, (mode, rest), bias) in enumerate(table):
        top_k = [{}, {"top_k": 2}, {"top_k": 3}, {"top_k": 1}][index % 4]
        name = f"competition_{response}_{mode}" + ("_bias" if bias else "")
        add(name, drawn_model(
            name, competition(response, **rest, **top_k), [kinds[4 * index % 9]] * 3, 1 + index // 2 % 2,
            law=("uniform", "normal", "grid")[index % 3], bias=bias))
    # Linear experts under each response, sparse.
    for response in ("softplus", "absolute", "square"):
        name = f"competition_{response}_linear_top2"
        add(name, drawn_model(name, competition(response, kappa=0.5, top_k=2), ["linear"] * 4, 2, bias=True))
    # Routers: selection rules, with and without all experts.
    for kind in ("softmax", "sigmoid"):
        for rule, rest in {
            "all": {}, "dense_slope": {"top_k": 3, "selection": "slope"},
            "top1_score": {"top_k": 1, "selection": "score"}, "top2": {"top_k": 2},
            "top2_slope": {"top_k": 2, "selection": "slope"},
        }.items():
            name = f"{kind}_{rule}"
            mixed = ["linear", "gelu*", "tanh"] if kind == "softmax" else ["linear", "relu*", "sigmoid*"]
            add(name, drawn_model(name, {"kind": kind, **rest}, mixed, 2 if "2" in rule else 1))
    for name, rest in {"constant_all": {}, "constant_top2": {"top_k": 2}}.items():
        add(name, drawn_model(name, {"kind": "constant", **rest}, ["linear", "sigmoid", "relu*"], 1, law="normal"))
    # Shared variance.
    add("shared_competition", drawn_model("shared_competition", competition("softplus"), ["linear"] * 3, 2, shared=True))
    add("shared_softmax_top2", drawn_model(
        "shared_softmax_top2", {"kind": "softmax", "top_k": 2}, ["tanh*"] * 3, 1, shared=True))
    # Sixteen dimensions.
    for name, gate, kind in (
        ("wide_competition", competition("softplus", kappa=1.5, top_k=2), "gelu*"),
        ("wide_softmax", {"kind": "softmax", "top_k": 2, "selection": "slope"}, "linear"),
        ("wide_sigmoid", {"kind": "sigmoid"}, "tanh*"),
    ):
        add(name, drawn_model(name, gate, [kind] * 3, 16, bias=name == "wide_competition",
                              law="normal" if name == "wide_sigmoid" else "uniform"))
    # No dimension at all: mixtures with constant coefficients.
    for name, gate in (
        ("point_competition", competition("absolute")), ("point_softmax", {"kind": "softmax", "top_k": 2}),
        ("point_sigmoid", {"kind": "sigmoid"}), ("point_constant", {"kind": "constant"}),
    ):
        add(name, drawn_model(name, gate, ["linear", "tanh*", "gelu"], 0))
    # One expert.
    add("single_sigmoid", drawn_model("single_sigmoid", {"kind": "sigmoid"}, ["sigmoid"], 1))
    # Ties in the selection go to the lower index: experts 0 and 2 have equal scores.
    tied = drawn_model("tied_softmax", {"kind": "softmax", "top_k": 2}, ["linear"] * 3, 1)
    for part in ("gate_slope", "gate_intercept"):
        tied["expert"][2][part] = tied["expert"][0][part]
    add("tied_softmax", tied)
    tied = drawn_model("tied_relu", competition("softplus", top_k=2), ["relu"] * 4, 1, steep=3.0)
    add("tied_relu", tied)
    # Steep slopes: saturated gates and activations, responses that underflow.
    box = {"law": "uniform", "low": [-1.0], "high": [1.0]}
    add("steep_softplus", {"input": box, "gate": competition("softplus", kappa=30.0), "expert": [
        expert("linear", [1e4], 0.5, 0.3, bias=0.3), expert("linear", [-2e4], 1.0, 0.4, bias=0.0)]})
    add("steep_normalised", {"input": box, "gate": competition("softplus", "normalised"), "expert": [
        expert("linear", [5e3], -0.5, 0.3), expert("linear", [4e3], 1.0, 0.4)]})
    add("steep_square", {"input": box, "gate": competition("square"), "expert": [
        expert("linear", [300.0], -0.5, 0.3), expert("linear", [-301.0], 1.0, 1e-4), expert("linear", [2.0], 0.5, 1e4)]})
    add("steep_softmax", {"input": box, "gate": {"kind": "softmax"}, "expert": [
        expert("linear", [1e6], 0.5, 0.3, gate_slope=[1e5], gate_intercept=3.0),
        expert("linear", [-2.0], 1.0, 0.4, gate_slope=[-1e5], gate_intercept=-2.0)]})
    add("steep_sigmoid", {"input": box, "gate": {"kind": "sigmoid"}, "expert": [
        expert("linear", [1.0], 0.5, 0.3, gate_slope=[1e4], gate_intercept=3.0),
        expert("linear", [-2.0], 1.0, 0.4, gate_slope=[1.1e4], gate_intercept=-2.0)]})
    add("steep_activations", {"input": box, "gate": competition("absolute", kappa=3.0), "expert": [
        expert("tanh", [1e3], 0.5, 0.3, scale=2.0), expert("sigmoid", [-800.0], 1.0, 0.4, scale=-1.5),
        expert("gelu", [60.0], 0.5, 0.1), expert("relu", [-1e3], 0.5, 0.5, scale=1e-2)]})
    return names


def some_input(model, draws):
    inputs = model["input"]
    if inputs["law"] == "uniform":
        return [draws.number(a, b, 3) for a, b in zip(inputs["low"], inputs["high"])]
    if inputs["law"] == "normal":
        return [round(m + s * draws.number(-1.5, 1.5), 3) for m, s in zip(inputs["mean"], inputs["sd"])]
    return inputs["points"][int(draws.number(0, 1e6)) % len(inputs["points"])]


def usable(model, x):
    """Not all selected weights zero."""
    values, x = coordinates(model), exact(x)
    own = log_weights(model, values, x, means(model, values, x))
    return any(own[i] != mp.ninf for i in select(model, values, x))


def far_tail(model, x, side, level):
    """About where log p(y|x) = level, far out on one side."""
    values = coordinates(model)
    mean = [float(m) for m in means(model, values, exact(x))]
    start = max(mean) if side > 0 else min(mean)
    near, far = 0.0, 1.0
    while log_density_at(model, x, start + side * far) > level:
        near, far = far, 2 * far
    for _ in range(20):
        middle = (near + far) / 2
        near, far = (middle, far) if log_density_at(model, x, start + side * middle) > level else (near, middle)
    return start + side * far


def density_points(name, model, count=12):
    draws = Draws("points of " + name)
    points = []
    while len(points) < count:
        index = len(points)
        x = some_input(model, draws)
        if index == count - 1 and model["input"]["law"] == "uniform":
            x = model["input"]["high"]
        if not usable(model, x):
            continue
        values = coordinates(model)
        selected = select(model, values, exact(x))
        if index < count - 4 or index == count - 1:
            i = selected[index % len(selected)]
            mean = means(model, values, exact(x))[i]
            y = float(mean) + math.sqrt(model["expert"][i]["variance"]) * draws.number(-3, 3)
        else:
            side, level = {4: (1, -1e4), 3: (-1, -1e4), 2: (1, -300.0)}[count - index]
            y = far_tail(model, x, side, level)
        y = float(f"{y:.8g}")
        points.append({
            "x": x, "y": y, "log_density": log_density_at(model, x, y),
            "condition": float(f"{float(condition(model, x, y)):.2g}"),
        })
    return points


SCORED = (
    "competition_softplus_linear_top2", "competition_absolute_kappa_bias", "competition_square_normalised",
    "softmax_top2_slope", "sigmoid_all", "constant_top2", "shared_softmax_top2", "wide_competition",
)


def score_section(library):
    rows = []
    for name in SCORED:
        model = library.models[name]
        draws = Draws("score points of " + name)
        points = []
        while len(points) < 4:
            x = some_input(model, draws)
            if not usable(model, x):
                continue
            values = coordinates(model)
            i = select(model, values, exact(x))[0]
            y = float(means(model, values, exact(x))[i]) + draws.number(-2, 2)
            y = round(y, 4)
            points.append({"x": x, "y": y, "gradient": score(model, x, y)})
        rows.append({"model": model_path(name), "points": points})
    return rows


# -------------------------------------------------------- distance section ----

class Slice:
    """Two mixtures in y for every x of a batch, in double precision.

    Everything that depends on x alone is computed in mpmath first, the
    differences of the two models included, so that nearby models lose nothing
    to cancellation. All x of a batch have the same selected experts.
    """

    def __init__(self, first, second, xs):
        (model_p, p), (model_q, q) = first, second
        rows_p, rows_q, change = [], [], []
        with mp.workdps(40):
            select_p, select_q = select(model_p, p, xs[0]), select(model_q, q, xs[0])
            self.paired = select_p == select_q
            var_p = [variances(model_p, p)[i] for i in select_p]
            var_q = [variances(model_q, q)[i] for i in select_q]
            for x in xs:
                mean_p, weight_p = self.at(model_p, p, x, select_p)
                mean_q, weight_q = self.at(model_q, q, x, select_q)
                rows_p.append((weight_p, mean_p))
                rows_q.append((weight_q, mean_q))
                if self.paired:
                    change.append(([b - a for a, b in zip(weight_p, weight_q)],
                                   [b - a for a, b in zip(mean_p, mean_q)]))
            if self.paired:
                self.weight_change, self.mean_change = np.moveaxis(np.array(change, dtype=float), 1, 0)
                self.precision_change = np.array([(1 / a - 1 / b) / 2 for a, b in zip(var_p, var_q)], dtype=float)
                self.log_sd_change = np.array([mp.log(b / a) / 2 for a, b in zip(var_p, var_q)], dtype=float)
        self.weight_p, self.mean_p = np.moveaxis(np.array(rows_p, dtype=float), 1, 0)
        self.weight_q, self.mean_q = np.moveaxis(np.array(rows_q, dtype=float), 1, 0)
        self.var_p, self.var_q = np.array(var_p, dtype=float), np.array(var_q, dtype=float)
        # Twelve standard deviations beyond the outermost mean.
        self.width = math.sqrt(min(self.var_p.min(), self.var_q.min()))
        reach_p, reach_q = 12 * np.sqrt(self.var_p), 12 * np.sqrt(self.var_q)
        self.low = np.minimum((self.mean_p - reach_p).min(1), (self.mean_q - reach_q).min(1))
        self.high = np.maximum((self.mean_p + reach_p).max(1), (self.mean_q + reach_q).max(1))
        self.span = float((self.high - self.low).max())

    @staticmethod
    def at(model, values, x, selected):
        """Means and normalised log-weights of the selected experts."""
        mean = means(model, values, x)
        own = log_weights(model, values, x, mean)
        top = max(own[i] for i in selected)
        total = top + mp.log(mp.fsum(mp.exp(own[i] - top) for i in selected))
        return [mean[i] for i in selected], [own[i] - total for i in selected]

    @staticmethod
    def terms(weight, mean, variance, row, y):
        return weight[row] - 0.5 * np.log(2 * np.pi * variance) - (y[:, None] - mean[row]) ** 2 / (2 * variance)

    @staticmethod
    def log_sum(terms):
        top = terms.max(1)
        return top + np.log(np.exp(terms - top[:, None]).sum(1))

    def log_ratio(self, row, y):
        """log p and log q/p at the points (x[row], y)."""
        p = self.terms(self.weight_p, self.mean_p, self.var_p, row, y)
        log_p = self.log_sum(p)
        ratio = self.log_sum(self.terms(self.weight_q, self.mean_q, self.var_q, row, y)) - log_p
        if self.paired:
            # q/p - 1 = sum of (share of expert i in p) (q_i/p_i - 1).
            error = y[:, None] - self.mean_p[row]
            dm = self.mean_change[row]
            delta = (self.weight_change[row] - self.log_sd_change + self.precision_change * error**2
                     + (error * dm - dm**2 / 2) / self.var_q)
            near = np.abs(delta).max(1) < 0.5
            share = np.exp(p[near] - log_p[near, None])
            ratio[near] = np.log1p((share * np.expm1(delta[near])).sum(1))
        return log_p, ratio

    def ratio_slope(self, row, y):
        """d/dy of log q/p."""
        slopes = []
        for weight, mean, variance in ((self.weight_q, self.mean_q, self.var_q), (self.weight_p, self.mean_p, self.var_p)):
            terms = self.terms(weight, mean, variance, row, y)
            share = np.exp(terms - self.log_sum(terms)[:, None])
            slopes.append((share * (mean[row] - y[:, None]) / variance).sum(1))
        return slopes[0] - slopes[1]


def bisect(function, row, low, high):
    """Sign changes of function(row, y) in the brackets [low, high], all at once."""
    sign = function(row, low) >= 0
    low, high = low.copy(), high.copy()
    for _ in range(60):
        middle = (low + high) / 2
        same = (function(row, middle) >= 0) == sign
        low[same] = middle[same]
        high[~same] = middle[~same]
    return (low + high) / 2


def crossings(batch, row, y, ratio):
    """Where p = q: pairs (row, root), from values on the grid y with shape (rows, points)."""
    sign = ratio >= 0
    r, j = np.nonzero(sign[:, 1:] != sign[:, :-1])
    brackets = [(r, y[r, j], y[r, j + 1])]
    # Two roots between neighbouring grid points: look at the extremum in between.
    size = np.abs(ratio)
    dip = (size[:, 1:-1] <= size[:, :-2]) & (size[:, 1:-1] <= size[:, 2:])
    dip &= (sign[:, 1:-1] == sign[:, :-2]) & (sign[:, 1:-1] == sign[:, 2:])
    r, j = np.nonzero(dip)
    if r.size:
        lowest = bisect(batch.ratio_slope, r, y[r, j], y[r, j + 2])
        through = (batch.log_ratio(r, lowest)[1] >= 0) != sign[r, j]
        r, j, lowest = r[through], j[through], lowest[through]
        brackets += [(r, y[r, j], lowest), (r, lowest, y[r, j + 2])]
    r, low, high = (np.concatenate(parts) for parts in zip(*brackets))
    return r, bisect(lambda rows, at: batch.log_ratio(rows, at)[1], r, low, high)


def convex_gap(ratio):
    """e^t - 1 - t."""
    series = sum(ratio**k / math.factorial(k) for k in range(16, 1, -1))
    return np.where(np.abs(ratio) < 0.5, series, np.expm1(np.minimum(ratio, 700.0)) - ratio)


def gauss_legendre(count, cache={}):
    """Nodes and weights on [0, 1]."""
    if count not in cache:
        node, weight = np.polynomial.legendre.leggauss(count)
        cache[count] = ((node + 1) / 2, weight / 2)
    return cache[count]


def integrate_y(first, second, xs, fine):
    """h^2, V and KL at every x of a batch with common selection."""
    batch = Slice(first, second, xs)
    rows = len(xs)
    # Trapezoids over the whole line: spectral accuracy for h^2 and KL.
    points = math.ceil(24 * fine * batch.span / batch.width) + 1
    y = batch.low[:, None] + (batch.high - batch.low)[:, None] * np.linspace(0, 1, points)
    row = np.repeat(np.arange(rows), points)
    log_p, ratio = (a.reshape(rows, points) for a in batch.log_ratio(row, y.ravel()))
    step = (batch.high - batch.low) / (points - 1)
    larger = np.exp(np.maximum(log_p, log_p + ratio))
    squared = 0.5 * step * (larger * np.expm1(-np.abs(ratio) / 2) ** 2).sum(1)
    gap = np.where(ratio > 100, np.exp(log_p + ratio) - np.exp(log_p) * (1 + ratio), np.exp(log_p) * convex_gap(ratio))
    divergence = step * gap.sum(1)
    # Gauss-Legendre between the roots of p - q, on panels no wider than the least deviation.
    root_row, root = crossings(batch, row, y, ratio)
    panels = math.ceil(fine * batch.span / batch.width)
    edges = batch.low[:, None] + (batch.high - batch.low)[:, None] * np.linspace(0, 1, panels + 1)
    owner = np.concatenate([np.repeat(np.arange(rows), panels + 1), root_row])
    edge = np.concatenate([edges.ravel(), root])
    order = np.lexsort((edge, owner))
    owner, edge = owner[order], edge[order]
    inner = owner[1:] == owner[:-1]
    low, length, owner = edge[:-1][inner], np.diff(edge)[inner], owner[:-1][inner]
    node, weight = gauss_legendre(16 * fine)
    at = low[:, None] + length[:, None] * node
    log_p, ratio = batch.log_ratio(np.repeat(owner, node.size), at.ravel())
    difference = np.exp(np.maximum(log_p, log_p + ratio)) * -np.expm1(-np.abs(ratio))
    panel = (difference.reshape(at.shape) * weight).sum(1) * length
    variation = 0.5 * np.bincount(owner, panel, minlength=rows)
    return squared, variation, divergence


def gauss_legendre_mp(count):
    """The same rule in mpmath, by Newton's method from the double nodes."""
    nodes, weights = [], []
    for t in gauss_legendre(count)[0]:
        t = 2 * mpf(float(t)) - 1
        for _ in range(4):
            before, value = mpf(1), t
            for k in range(2, count + 1):
                before, value = value, ((2 * k - 1) * t * value - (k - 1) * before) / k
            slope = count * (t * value - before) / (t * t - 1)
            t -= value / slope
        nodes.append((t + 1) / 2)
        weights.append(1 / ((1 - t * t) * slope**2))
    assert abs(mp.fsum(weights) - 1) < mpf(10) ** -40
    return nodes, weights


GAUSS_40 = gauss_legendre_mp(40)
QUANTITIES = ("hellinger_mean", "hellinger_sq_mean", "tv_mean", "kl_mean")


def distances_at(first, second, xs, fine=1):
    """The four quantities at every x, shape (len(xs), 4)."""
    xs = [exact(x) for x in xs]
    result = np.empty((len(xs), 4))
    groups = {}
    for k, x in enumerate(xs):
        key = (select(*first, x), select(*second, x))
        groups.setdefault(key, []).append(k)
    for members in groups.values():
        for start in range(0, len(members), 64):
            part = members[start:start + 64]
            squared, variation, divergence = integrate_y(first, second, [xs[k] for k in part], fine)
            result[part] = np.stack([np.sqrt(squared), squared, variation, divergence], axis=1)
    return result


def input_density(inputs):
    """End points and a density on the line, as doubles."""
    if inputs["law"] == "uniform":
        low, high = inputs["low"][0], inputs["high"][0]
        return low, high, lambda x: np.full_like(x, 1 / (high - low))
    mean, sd, cut = inputs["mean"][0], inputs["sd"][0], inputs["truncation"]
    mass = sd * math.sqrt(2 * math.pi) * float(mp.erf(mpf(cut) / mp.sqrt(2)))
    return mean - cut * sd, mean + cut * sd, lambda x: np.exp(-(((x - mean) / sd) ** 2) / 2) / mass


def breakpoints(models, low, high, scan=800):
    """Where the integrand in x may not be smooth: an expert's linear form changes
    sign, or the selection changes."""
    found = []
    grid = [low + (high - low) * (k + 0.5) / scan for k in range(scan)]

    def search(key):
        marks = [key(x) for x in grid]
        for a, b, left, right in zip(grid, grid[1:], marks, marks[1:]):
            if left == right:
                continue
            for _ in range(60):
                middle = (a + b) / 2
                if middle in (a, b):
                    break
                a, b = (middle, b) if key(middle) == left else (a, middle)
            found.append(b)

    with mp.workdps(30):
        for model, values in models:
            def signs(x):
                return [linear_form(values, "slope", "intercept", i, [mpf(x)]) > 0 for i in range(len(model["expert"]))]
            def selected(x):
                count = len(model["expert"])
                top_k = model["gate"].get("top_k", count)
                scores = selection_scores(model, values, [mpf(x)], means(model, values, [mpf(x)]))
                return set(sorted(range(count), key=lambda i: (-scores[i], i))[:top_k])
            search(signs)
            search(selected)
    return sorted({low, high, *found})


def integrate_line(first, second):
    """Adaptive Gauss-Legendre over x, then once more with everything doubled."""
    low, high, density = input_density(first[0]["input"])
    edges = breakpoints((first, second), low, high)
    node, weight = gauss_legendre(14)

    def panels(a, b, fine=1):
        x = a[:, None] + (b - a)[:, None] * node
        values = distances_at(first, second, [[float(e)] for e in x.ravel()], fine).reshape(*x.shape, 4)
        return ((b - a)[:, None, None] * (weight * density(x))[:, :, None] * values).sum(1)

    a = np.concatenate([np.linspace(s, t, 4)[:-1] for s, t in zip(edges, edges[1:])])
    b = np.concatenate([np.linspace(s, t, 4)[1:] for s, t in zip(edges, edges[1:])])
    whole = panels(a, b)
    total = whole.sum(0)
    leaves, coarse = [], np.zeros(4)
    while a.size:
        middle = (a + b) / 2
        halves = panels(np.concatenate([a, middle]), np.concatenate([middle, b]))
        left, right = halves[:a.size], halves[a.size:]
        both = left + right
        change = np.abs(both - whole)
        done = ((change <= 1e-15 * total) | (change <= 3e-14 * both)).all(1) | (b - a < 1e-12 * (high - low))
        coarse += both[done].sum(0)
        leaves += [*zip(a[done], middle[done]), *zip(middle[done], b[done])]
        keep = ~done
        a, b = np.concatenate([a[keep], middle[keep]]), np.concatenate([middle[keep], b[keep]])
        whole = np.concatenate([left[keep], right[keep]])
    left, right = map(np.array, zip(*sorted(leaves)))
    middle = (left + right) / 2
    fine = sum(panels(s, t, 2).sum(0) for s, t in ((left, middle), (middle, right)))
    return fine, coarse, len(leaves)


def integrate_box(first, second, count=16):
    """Tensor Gauss-Legendre over a rectangle, for models smooth in x."""
    low, high = (np.array(first[0]["input"][side]) for side in ("low", "high"))
    results = []
    for fine in (1, 2):
        node, weight = gauss_legendre(count * fine)
        xs = [list(map(float, low + (high - low) * np.array(pair))) for pair in itertools.product(node, node)]
        results.append((np.outer(weight, weight).ravel()[:, None] * distances_at(first, second, xs, fine)).sum(0))
    return results[1], results[0]


def integrate_grid(first, second):
    points = first[0]["input"]["points"]
    return [distances_at(first, second, points, fine).mean(0) for fine in (2, 1)]


def rounded_up(relative):
    """A power of ten, at least 1e-14."""
    return 10.0 ** max(-14, math.ceil(math.log10(max(relative, 1e-20))))


def changed(model, **parts):
    """A copy with numbers added: part={expert: difference}."""
    copy = json.loads(json.dumps(model))
    for part, moves in parts.items():
        for i, by in moves.items():
            table = copy["expert"][i]
            if isinstance(table[part], list):
                table[part] = [float(f"{e + d:.12g}") for e, d in zip(table[part], by)]
            else:
                table[part] = float(f"{table[part] + by:.12g}")
    return copy


def distance_pairs(library):
    """Names of the pairs; the models go into the library as NAME_p and NAME_q."""
    box = {"law": "uniform", "low": [-1.0], "high": [1.0]}
    bell = {"law": "normal", "mean": [0.2], "sd": [0.6], "truncation": 2.5}
    dots = {"law": "grid", "points": [[-1.0], [-0.55], [-0.1], [0.3], [0.8], [1.0]]}
    names = []

    def add(name, first, second):
        library.add(f"pair_{name}_p", first)
        library.add(f"pair_{name}_q", second)
        names.append(name)

    def nudged(model, by):
        gate = {}
        for part in ("bias", "gate_intercept"):
            if part in model["expert"][0]:
                gate[part] = {0: 0.7 * by}
        if "gate_slope" in model["expert"][0]:
            gate["gate_slope"] = {0: [-0.4 * by], 1: [0.6 * by]}
        third = {2: [0.4 * by]} if len(model["expert"]) == 3 else {}
        return changed(model, slope={0: [by], 1: [-0.5 * by], **third}, intercept={0: -0.3 * by, 1: 0.8 * by},
                       variance={0: 0.2 * by}, **gate)

    def gaussian(inputs, slope, intercept, variance):
        return {"input": inputs, "gate": {"kind": "constant"},
                "expert": [expert("linear", [slope], intercept, variance, bias=0.0)]}

    add("gaussian_variance", gaussian(box, 1.0, 0.25, 0.5), gaussian(box, 0.6, -0.4, 0.8))
    # The means cross inside the box, where h and V have a kink.
    add("gaussian_crossing", gaussian(bell, 1.0, 0.25, 0.5), gaussian(bell, -0.5, 0.47, 0.5))

    def two(inputs, gate, biases=(0.3, 0.0)):
        return {"input": inputs, "gate": gate, "expert": [
            expert("linear", [2.0], 1.0, 0.3, bias=biases[0]), expert("linear", [-1.5], 0.5, 0.4, bias=biases[1])]}

    def routed(inputs, gate, slopes=(1.5, 0.0), offsets=(0.3, 0.0)):
        return {"input": inputs, "gate": gate, "expert": [
            expert("linear", [2.0], 1.0, 0.3, gate_slope=[slopes[0]], gate_intercept=offsets[0]),
            expert("linear", [-1.5], 0.5, 0.4, gate_slope=[slopes[1]], gate_intercept=offsets[1])]}

    softplus = competition("softplus")
    absolute = competition("absolute")
    add("softplus_1e3", two(box, softplus), nudged(two(box, softplus), 1e-3))
    add("softplus_1e6", two(box, softplus), nudged(two(box, softplus), 1e-6))
    add("softplus_far", two(bell, softplus),
        {"input": bell, "gate": softplus, "expert": [
            expert("linear", [-1.0], 0.2, 0.5, bias=-0.4), expert("linear", [0.8], -0.6, 0.3, bias=0.0),
            expert("linear", [1.7], 1.2, 0.6, bias=0.2)]})
    add("absolute_1e3", two(box, absolute), nudged(two(box, absolute), 1e-3))
    add("absolute_1e6", two(bell, absolute), nudged(two(bell, absolute), 1e-6))
    add("absolute_far", two(box, absolute), changed(two(box, absolute), slope={0: [-1.2], 1: [3.0]}, variance={0: 0.3}))
    steep = routed({"law": "uniform", "low": [0.0], "high": [1.0]}, {"kind": "softmax"}, (25.0, 0.0), (-8.0, 0.0))
    add("softmax_steep_1e3", steep, nudged(steep, 1e-3))
    add("softmax_steep_far", steep, changed(steep, gate_slope={0: [-5.0]}, intercept={0: 0.5, 1: -1.0}))
    three = drawn_model("pair_top1", {"kind": "softmax", "top_k": 1}, ["linear"] * 3, 1)
    three["input"] = box
    for i, (slope, offset) in enumerate(((-2.0, -0.2), (0.3, 0.4), (2.2, -0.5))):
        three["expert"][i].update(gate_slope=[slope], gate_intercept=offset)
    add("softmax_top1_1e3", three, nudged(three, 1e-3))
    slope_rule = json.loads(json.dumps(three))
    slope_rule["gate"] = {"kind": "softmax", "top_k": 2, "selection": "slope"}
    add("softmax_top2_slope_far", slope_rule, changed(slope_rule, gate_slope={0: [0.6], 2: [-0.9]}, intercept={1: 0.4}))
    square = {"input": bell, "gate": competition("square", kappa=0.7, top_k=2), "expert": [
        expert("linear", [1.3], 0.4, 0.3), expert("linear", [-1.1], 0.6, 0.4), expert("linear", [0.4], -1.0, 0.5)]}
    add("square_top2_1e3", square, nudged(square, 1e-3))
    sigmoid = routed(box, {"kind": "sigmoid"}, (1.5, -0.8), (0.3, 0.5))
    add("sigmoid_far", sigmoid, nudged(sigmoid, 0.8))
    add("sigmoid_1e6", routed(dots, {"kind": "sigmoid"}), nudged(routed(dots, {"kind": "sigmoid"}), 1e-6))
    add("constant_grid", two(dots, {"kind": "constant"}), nudged(two(dots, {"kind": "constant"}), 0.1))
    curved = {"variance": "shared", "input": box, "gate": competition("softplus", "normalised"), "expert": [
        expert("tanh", [2.0], 0.3, 0.3, scale=1.5), expert("gelu", [-1.5], 0.5, 0.3)]}
    add("normalised_curved", curved, changed(
        curved, slope={0: [0.05], 1: [0.1]}, scale={0: -0.1}, variance={0: 0.02, 1: 0.02}))
    plane = {"input": {"law": "uniform", "low": [-1.0, -0.5], "high": [1.0, 1.0]}, "gate": softplus, "expert": [
        expert("linear", [0.3, -0.15], 0.2, 0.3, bias=0.2), expert("linear", [-0.2, 0.1], -0.1, 0.4, bias=0.0)]}
    # One crossing of p and q for every x, so that V is smooth too.
    add("softplus_plane", plane, changed(
        plane, slope={0: [0.1, -0.05], 1: [0.05, 0.1]}, intercept={0: 0.8, 1: 0.9}, bias={0: -0.1}))
    return names


def check_closed_form(first, second, value):
    """Single Gaussians: h^2 = 1 - sqrt(2 s1 s2/(s1^2+s2^2)) exp(-(m1-m2)^2/(4(s1^2+s2^2))), and KL and V."""
    (model, p), (_, q) = first, second
    v, u = mp.exp(p["log_variance[0]"]), mp.exp(q["log_variance[0]"])
    low, high, _ = input_density(model["input"])
    def gap(x):
        return (q["slope[0][0]"] - p["slope[0][0]"]) * x + q["intercept[0]"] - p["intercept[0]"]
    def squared(x):
        return 1 - mp.sqrt(2 * mp.sqrt(v * u) / (v + u)) * mp.exp(-gap(x) ** 2 / (4 * (v + u)))
    def divergence(x):
        return (mp.log(u / v) + (v + gap(x) ** 2) / u - 1) / 2
    def density(x):
        if model["input"]["law"] == "uniform":
            return 1 / (mpf(high) - mpf(low))
        mean, sd, cut = (mpf(e) for e in (model["input"]["mean"][0], model["input"]["sd"][0], model["input"]["truncation"]))
        return mp.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * mp.sqrt(2 * mp.pi) * mp.erf(cut / mp.sqrt(2)))
    with mp.workdps(25):
        zero = (p["intercept[0]"] - q["intercept[0]"]) / (q["slope[0][0]"] - p["slope[0][0]"])
        ends = [mpf(low), *([zero] if low < zero < high else []), mpf(high)]
        truth = [mp.quad(lambda x: f(x) * density(x), ends)
                 for f in (lambda x: mp.sqrt(squared(x)), squared, divergence)]
        if v == u:
            truth.insert(2, mp.quad(lambda x: mp.erf(abs(gap(x)) / mp.sqrt(8 * v)) * density(x), ends))
    found = value if v == u else value[[0, 1, 3]]
    assert all(abs(f / t - 1) < 1e-13 for f, t in zip(found, truth)), (found, truth)


def check_pointwise(first, second, x):
    """h^2, V and KL at one x against 40-digit quadrature of the definitions."""
    (model_p, p), (model_q, q) = first, second
    found = distances_at(first, second, [x])[0][1:]
    x = exact(x)
    with mp.workdps(40):
        parts = [(means(m, v, x), log_weights(m, v, x, means(m, v, x)), variances(m, v), select(m, v, x))
                 for m, v in (first, second)]
        def densities(y):
            return [mp.exp(mixture(*part, y)[0]) for part in parts]
        def gap(y):
            a, b = densities(y)
            return a - b
        def integrands(y):
            a, b = densities(y)
            return (mp.sqrt(a) - mp.sqrt(b)) ** 2 / 2, a - b, a * mp.log(a / b)
        low = min(m - 11 * mp.sqrt(v) for mean, _, var, _ in parts for m, v in zip(mean, var))
        high = max(m + 11 * mp.sqrt(v) for mean, _, var, _ in parts for m, v in zip(mean, var))
        grid = mp.linspace(low, high, 240)
        value = [gap(y) for y in grid]
        edges = [low]
        for a, b, left, right in zip(grid, grid[1:], value, value[1:]):
            if left * right < 0:
                edges.append(mp.findroot(gap, (a, b), solver="anderson", tol=mpf(10) ** -70, verify=False))
        edges.append(high)
        node, weight = GAUSS_40
        truth = [mpf(0)] * 3
        for a, b in zip(edges, edges[1:]):
            pieces = max(1, math.ceil((b - a) / (mp.sqrt(min(parts[0][2] + parts[1][2])) * 2)))
            between = mpf(0)
            for k in range(pieces):
                start, length = a + (b - a) * k / pieces, (b - a) / pieces
                for t, w in zip(node, weight):
                    squared, difference, divergence = integrands(start + length * t)
                    truth[0] += w * length * squared
                    between += w * length * difference
                    truth[2] += w * length * divergence
            truth[1] += abs(between) / 2
    worst = max(abs(f / t - 1) for f, t in zip(found, truth))
    assert worst < 1e-12, (found, truth)
    return float(worst)


def distance_section(library):
    rows = []
    for name in distance_pairs(library):
        first, second = ((library.models[m], coordinates(library.models[m])) for m in (f"pair_{name}_p", f"pair_{name}_q"))
        inputs = first[0]["input"]
        assert inputs == second[0]["input"]
        if inputs["law"] == "grid":
            value, coarse = integrate_grid(first, second)
        elif len(first[0]["expert"][0]["slope"]) == 2:
            value, coarse = integrate_box(first, second)
        else:
            value, coarse, _ = integrate_line(first, second)
        relative = np.abs(value - coarse) / value
        assert relative.max() < 1e-11, (name, relative)
        dimension = len(first[0]["expert"][0]["slope"])
        worst = max(check_pointwise(first, second, x) for x in ([0.37, 0.2][:dimension], [0.71, -0.4][:dimension]))
        if name.startswith("gaussian"):
            check_closed_form(first, second, value)
        rows.append({
            "first": model_path(f"pair_{name}_p"), "second": model_path(f"pair_{name}_q"),
            **{key: digits15(v) for key, v in zip(QUANTITIES, value)},
            "accuracy": {key: rounded_up(r) for key, r in zip(QUANTITIES, relative)},
        })
        print(f"  {name:24}", *(f"{v:.15e}" for v in value), f"change {relative.max():.1e}, at two x {worst:.1e}")
    return rows


# ---------------------------------------------------------- Fisher section ----

def fisher_models(library):
    box = {"law": "uniform", "low": [-1.0], "high": [1.0]}
    pieces = (([2.0], 1.0, 0.3), ([-1.5], 0.5, 0.4))
    for response in ("softplus", "absolute"):
        library.add(f"fisher_{response}", {"input": box, "gate": competition(response), "expert": [
            expert("linear", *piece, bias=bias) for piece, bias in zip(pieces, (0.3, 0.0))]})
    library.add("fisher_softmax", {"input": box, "gate": {"kind": "softmax"}, "expert": [
        expert("linear", *piece, gate_slope=[slope], gate_intercept=offset)
        for piece, slope, offset in zip(pieces, (1.5, 0.0), (0.3, 0.0))]})
    return ["fisher_softplus", "fisher_softmax", "fisher_absolute"]


def fisher_order(model):
    names = [name for name in score_names(model) if not name.startswith("log_variance")]
    gate = [name for name in names if name.startswith(("bias", "gate"))]
    spread = [name for name in score_names(model) if name.startswith("log_variance")]
    return [name for name in names if name not in gate] + spread + gate


def linear_scores(model, x, y):
    """log p and its gradient in the order of fisher_order, in double precision.

    For dense gates over linear experts in d = 1; x and y are flat arrays.
    """
    def column(part):
        return np.array([np.ravel(table[part])[0] for table in model["expert"]])
    gate = model["gate"]
    variance = column("variance")
    mean = np.outer(x, column("slope")) + column("intercept")
    if gate["kind"] == "softmax":
        own = np.outer(x, column("gate_slope")) + column("gate_intercept")
        pull = np.zeros_like(mean)
    elif gate["response"] == "softplus":
        own = np.logaddexp(0, mean) + column("bias")
        pull = 1 / (1 + np.exp(-mean))
    else:
        own = np.abs(mean) + column("bias")
        pull = np.sign(mean)
    log_weight = own - Slice.log_sum(own)[:, None]
    error = y[:, None] - mean
    terms = log_weight - 0.5 * np.log(2 * np.pi * variance) - error**2 / (2 * variance)
    log_p = Slice.log_sum(terms)
    share = np.exp(terms - log_p[:, None])
    excess = share - np.exp(log_weight)
    by_mean = share * error / variance + excess * pull
    columns = []
    for i in range(len(variance)):
        columns += [by_mean[:, i] * x, by_mean[:, i]]
    columns += [share[:, i] * (error[:, i] ** 2 / variance[i] - 1) / 2 for i in range(len(variance))]
    for i in range(len(variance) - 1):
        columns += [excess[:, i] * x, excess[:, i]] if gate["kind"] == "softmax" else [excess[:, i]]
    return log_p, np.stack(columns, axis=1)


def fisher_section(library):
    rows = []
    for name in fisher_models(library):
        model = library.models[name]
        order = fisher_order(model)
        for x, y in ((0.3, 1.1), (-0.7, -2.0), (0.9, 0.2)):
            truth = score(model, [x], y)
            found = linear_scores(model, np.array([x]), np.array([y]))[1][0]
            assert all(abs(f - truth[key]) < 1e-13 * (1 + abs(f)) for f, key in zip(found, order)), name
        low, high, _ = input_density(model["input"])
        edges = breakpoints([(model, coordinates(model))], low, high)
        matrices = []
        for fine in (1, 2):
            node, weight = gauss_legendre(16)
            total = np.zeros((len(order), len(order)))
            for a, b in zip(edges, edges[1:]):
                for s, t in itertools.pairwise(np.linspace(a, b, 8 * fine + 1)):
                    y = np.linspace(-14.0, 14.0, 1200 * fine + 1)
                    x = np.repeat(s + (t - s) * node, y.size)
                    log_p, gradient = linear_scores(model, x, np.tile(y, node.size))
                    mass = np.repeat(weight, y.size) * (t - s) / (high - low) * (y[1] - y[0]) * np.exp(log_p)
                    total += (gradient[:, :, None] * gradient[:, None, :] * mass[:, None, None]).sum(0)
            matrices.append((total + total.T) / 2)
        scale = np.sqrt(np.diag(matrices[1]))
        change = float((np.abs(matrices[1] - matrices[0]) / np.outer(scale, scale)).max())
        assert change < 1e-10
        rows.append({
            "model": model_path(name), "names": order,
            "matrix": [[digits15(v) for v in row] for row in matrices[1]], "accuracy": rounded_up(change),
        })
        print(f"  {name:24} change {change:.1e}, least eigenvalue {np.linalg.eigvalsh(matrices[1])[0]:.6f}")
    return rows


# ------------------------------------------------------------------ output ----

def digits15(value):
    return float(f"{value:.14e}")


def to_json(value):
    """Compact JSON; mpmath numbers get 17 significant digits."""
    if isinstance(value, mpmath.mpf):
        return mp.nstr(value, 17) if value else "0.0"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{to_json(v)}" for key, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def main():
    for old in MODELS.glob("*.toml"):
        old.unlink()
    library = Library()
    golden = {"philox": philox_section()}
    print("density")
    golden["density"] = [
        {"model": model_path(name), "points": density_points(name, library.models[name])}
        for name in density_models(library)
    ]
    print("score")
    golden["score"] = score_section(library)
    print("fisher")
    golden["fisher"] = fisher_section(library)
    print("distance")
    golden["distance"] = distance_section(library)
    # One entry a line, so that a change shows in a diff.
    sections = (
        f"{json.dumps(key)}:[\n" + ",\n".join(map(to_json, golden[key])) + "\n]"
        for key in ("density", "score", "distance", "philox", "fisher")
    )
    text = "{" + ",\n".join(sections) + "}\n"
    json.loads(text)
    (HERE / "golden.json").write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(library.models)} models, {len(text.encode()) // 1000} kB")


if __name__ == "__main__":
    main()
