"""Values of elementary functions to 30 digits: writes functions.json beside this file.

    pip install -r tests/golden/requirements.txt && python tests/golden/functions.py

Each entry is [x, high, low]: f(x) = high + low with high the nearest double, so
that errors far below one unit in the last place can be seen. Arguments are
random over each function's range (fixed seed), with its awkward points added.
"""

import json
import random
from pathlib import Path

from mpmath import mp

mp.dps = 60
COUNT = 400


def split(value):
    high = float(value)
    return high, float(value - mp.mpf(high))


def table(function, arguments):
    return [[x, *split(function(mp.mpf(x)))] for x in arguments]


def main():
    draw = random.Random(20261122)
    uniform = lambda low, high: [draw.uniform(low, high) for _ in range(COUNT)]
    log_uniform = lambda low, high: [10.0 ** draw.uniform(low, high) for _ in range(COUNT)]
    near_one = [1.0 + sign * 2.0**-k for k in range(1, 53) for sign in (-1, 1)]
    # Halves of log 2 are where the reduced argument changes sides.
    halves = [(k + 0.5) * float(mp.log(2)) for k in range(-20, 20)]
    quarters = [k / 8 + sign * 2.0**-40 for k in range(1, 8) for sign in (-1, 0, 1)]
    tiny = log_uniform(-300, 0)
    functions = {
        "exp": table(mp.exp, uniform(-2, 2) + uniform(-707, 708) + halves + [0.0, -0.0, -708.0, 709.0] + [-v for v in tiny]),
        "exp_m1": table(mp.expm1, uniform(-2, 2) + uniform(-40, 700) + halves + [0.0, -709.0] + tiny + [-v for v in tiny]),
        "ln": table(mp.log, uniform(0.4, 3) + log_uniform(-307, 308) + [v for v in near_one if v != 1.0] + [1.0, 2.2250738585072014e-308]),
        "ln_1p_unit": table(mp.log1p, uniform(0, 1) + tiny + [1.0, 0.0, 0.41421356237309503, 0.4142135623730951]),
        "cos_turn": table(lambda u: mp.cos(2 * mp.pi * u), uniform(0, 1) + quarters + [0.0, 1.0, 2.0**-54]),
    }
    lines = (f"{json.dumps(name)}:[\n" + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in functions.items())
    path = Path(__file__).resolve().parent / "functions.json"
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
