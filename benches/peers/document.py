"""The document beside the measurements: python benches/peers/document.py PERFORMANCE.json > PERFORMANCE.md"""

import json
import sys

TITLES = {
    "jax_lbfgs": "JAX L-BFGS",
    "scipy_lbfgs": "SciPy L-BFGS",
    "numpy_em": "NumPy EM",
    "flexmix": "flexmix",
}

INTRODUCTION = """# Performance

Written by `benches/peers/run.py`; the numbers are in [performance.json](performance.json). One
command repeats everything (`benches/peers/README.md` says what it needs):

```text
python benches/peers/run.py
```

GPUs: [gpu.md](gpu.md).
"""

PEERS = """## Against peers

The same model, data and start on one core: softmax gate, linear Gaussian experts, least squares in
each part of a noisy partition of the rows. Every entry is the peer's CPU seconds over ours, fits in
turn; medians, and in brackets the smallest and the largest ratio of a pair. Compiling, reading and
the start are not counted.

Peers stop by their own rules: L-BFGS at a relative change of 1e-14 (JAX; 1e-13 in SciPy), EM and
flexmix at 1e-10. flexmix starts from the partition itself and divides variances by n - p, so it ends
a little below the maximum. Ours begins on 2000 rows (`fit::Options::default`) and ends at a maximum of
all rows that is certified, or says that it is not.
"""

ROOFLINE = """## Against the machine

One pass computes the log-likelihood and its gradient. Its roofline is the least time in which the
machine could do the operations in the formulas, each at its highest measured rate, one kind after
the other, or read the rows from memory, whichever is longer. A row needs 2 K exponentials (2 if
K = 2), 1 logarithm, 1 division, 18 K + (4 K - 2) d additions, products and maxima, counted at the
rate of fused multiply-adds (`benches/peers/roofline.rs` lists them), and 8 (d + 1) bytes. Not
counted: loads and stores in the cache. Exponentials and logarithms run over a cached slice, by
this crate's functions or by a plain vectorised loop, whichever is faster. Limits are the best of
several measurements, and so are the passes: the least wall time of 45.
"""

SCALING = """## Growth with n
"""

STREAMING = """## Memory
"""


def table(header, rows):
    """A Markdown table, numbers to the right."""
    lines = [header, ["---:"] * len(header), *rows]
    return "".join("| " + " | ".join(str(entry) for entry in line) + " |\n" for line in lines)


def power(n):
    """n as a power of ten, where it is one."""
    digits = str(n)
    return f"10^{len(digits) - 1}" if digits.strip("0") == "1" else f"{n:,}".replace(",", " ")


def seconds(value):
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def text(results):
    """The whole document."""
    parts = [INTRODUCTION]
    if results["quick"]:
        parts.append("**A quick run: few cells, few repetitions.**\n")
    parts.append(machine(results))
    if results["fit_vs_peers"] or results["skipped"]:
        parts += [PEERS, peers(results)]
    if results["roofline"]:
        parts += [ROOFLINE, roofline(results)]
    if "scaling" in results:
        parts += [SCALING, scaling(results["scaling"])]
    if "streaming" in results:
        parts += [STREAMING, streaming(results["streaming"])]
    return "\n".join(parts)


def training(old):
    """The section that benches/train wrote into a document, kept as it is."""
    begin, end = "<!-- train: written by benches/train -->", "<!-- train: end -->"
    if begin not in old or end not in old:
        return ""
    return f"\n\n{old[old.index(begin) : old.index(end)]}{end}\n"


def machine(results):
    about = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))
    memory = f", {about['memory_gib']} GiB of memory" if "memory_gib" in about else ""
    vectors = f", {about['vectors']}" if "vectors" in about else ""
    return (
        f"{results['date']}: {about['processor']}{vectors}, {about['cores']} cores{memory}, "
        f"{about['system']}.\n{versions}.\n"
    )


def peers(results):
    pairs = {(p["peer"], p["n"], p["K"], p["d"]): p for p in results["pairs"]}
    compared = {(c["peer"], c["n"], c["K"], c["d"]): c for c in results["fit_vs_peers"]}
    present = [peer for peer in TITLES if any(key[0] == peer for key in compared)]
    rows = []
    for cell in sorted({key[1:] for key in compared}):
        here = {peer: compared[peer, *cell] for peer in present if (peer, *cell) in compared}
        first = next(iter(here))
        row = [power(cell[0]), *cell[1:], seconds(here[first]["seconds_ours"])]
        row.append(f"{pairs[first, *cell]['passes_ours']:g}")
        for peer in present:
            if peer not in here:
                row.append("-")
                continue
            pair = pairs[peer, *cell]
            spread = f"{pair['smallest_ratio']:.3g}-{pair['largest_ratio']:.3g}"
            row.append(f"{here[peer]['ratio']:.3g} ({spread})")
        rows.append(row)
    header = ["n", "K", "d", "ours", "passes", *(TITLES[peer] for peer in present)]
    written = table(header, rows) + "\n"

    rows = []
    for peer in present:
        found = [c for c in results["fit_vs_peers"] if c["peer"] == peer]
        large = [c["ratio"] for c in found if c["n"] >= 10_000]
        differences = [c["loglik_ours"] - c["loglik_peer"] for c in found]
        smallest = f"{min(large):.3g}" if large else "-"
        rows.append([TITLES[peer], smallest, f"{min(differences):+.1e}", f"{max(differences):+.1e}"])
    header = ["peer", "smallest ratio, n >= 10^4", "log-likelihood, ours - peer: smallest", "largest"]
    written += table(header, rows)
    uncertified = {p["stop_ours"] for p in results["pairs"]} - {"Converged"}
    if uncertified:
        written += f"\nSome of our fits ended with: {', '.join(sorted(uncertified))}.\n"
    for skipped in results["skipped"]:
        written += f"\nSkipped: {TITLES[skipped['peer']]} ({skipped['reason']}).\n"
    return written


def roofline(results):
    kinds = {
        "exponentials": "exponentials",
        "logarithms": "logarithms",
        "divisions": "divisions",
        "multiply_adds": "multiply-adds",
        "bytes": "bytes",
    }
    rows = [
        [limit["threads"], *(f"{limit[f'{kind}_per_second'] / 1e9:.3g}" for kind in kinds)]
        for limit in results["limits"]
    ]
    written = table(["threads", *(f"10^9 {name}/s" for name in kinds.values())], rows) + "\n"
    rows = []
    for one in results["passes"]:
        alone = next(
            p for p in results["passes"] if p["threads"] == 1 and (p["K"], p["d"]) == (one["K"], one["d"])
        )
        nanoseconds = 1e9 / one["n"]
        rows.append(
            [
                power(one["n"]),
                one["K"],
                one["d"],
                one["threads"],
                f"{nanoseconds * one['seconds']:.3g}",
                f"{nanoseconds * one['arithmetic_seconds']:.3g}",
                f"{nanoseconds * one['memory_seconds']:.3g}",
                f"{100 * one['fraction']:.0f} %",
                f"{alone['seconds'] / one['seconds']:.2f}",
            ]
        )
    header = ["n", "K", "d", "threads", "ns/row", "arithmetic", "memory", "of the roofline", "speed-up"]
    return written + table(header, rows)


def scaling(measured):
    rows = [
        [f"{row['n']:,}".replace(",", " "), seconds(row["pass_seconds"]), seconds(row["fit_seconds"]), row["stop"]]
        for row in measured["rows"]
    ]
    same = "are the same" if measured["same_bits_on_two_threads"] else "DIFFER"
    return (
        f"K = {measured['K']}, d = {measured['d']}, one thread, CPU seconds. Time grows as n to the power "
        f"{measured['pass_exponent']:.3f} for a\npass and {measured['fit_exponent']:.3f} for a fit from a "
        f"start near the truth (slopes of log-time in log n). The bits of\nevery pass and of a fit {same} "
        "on one and on two threads.\n\n" + table(["n", "gradient pass", "fit", "stop"], rows)
    )


def streaming(measured):
    if measured["peak_bytes"] is None:
        return "Not measured: this system does not tell a process's peak memory.\n"

    def mebibytes(name):
        return f"{measured[name] / 2**20:.0f} MiB"

    threads = "one thread" if measured["threads"] == 1 else f"{measured['threads']} threads"
    return (
        f"A fit with n = {power(measured['n'])}, K = {measured['K']}, d = {measured['d']} to data of "
        f"{mebibytes('data_bytes')}: the process has at most {mebibytes('peak_bytes')}\nresident, "
        f"{measured['peak_over_data']:.3f} times the data ({mebibytes('peak_bytes_before_data')} before "
        f"the data are drawn, {mebibytes('peak_bytes_with_data')} before the fit).\nIt takes "
        f"{seconds(measured['cpu_seconds'])} of CPU on {threads} and stops with {measured['stop']}.\n"
    )


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        sys.stdout.write(text(json.load(file)))
