"""Measures this crate beside its peers and against the machine's limits: python benches/peers/run.py

Writes performance.json and performance.md into docs/ after every cell (README.md in this folder).
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cells
import document

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PEERS = ("jax_lbfgs", "scipy_lbfgs", "numpy_em", "flexmix")
PARTS = ("fits", "roofline", "scaling", "streaming")
QUICK_CELLS = ((1_000, 2, 1), (10_000, 3, 2))

# CPU seconds spent on the fits of one peer to one cell, and bounds on their number.
BUDGET = 6.0
FEWEST, MOST = 3, 21
# Fits that take longer than so many seconds are made twice only.
LONG = 10.0
# Short fits of ours are repeated until they take about so many seconds together.
READABLE = 0.03

ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}


class Failure(Exception):
    """A process that ended or said something else than JSON."""


class Fitter:
    """A process that fits on request. It may use one core only: JAX obeys nothing else."""

    def __init__(self, command):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **ONE_THREAD},
            preexec_fn=stay_on_one_core,
            text=True,
        )
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:]
            raise Failure(last[0] if last else "the process ended") from None

    def fit(self, count):
        """Makes fits one after the other; the answer with the median of their CPU seconds."""
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The process has ended; the missing answer tells why.
        answer = self.answer()
        answer["seconds"] = statistics.median(answer["cpu_seconds"])
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()
        self.errors.close()


def stay_on_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def build():
    """Builds our program and returns its path."""
    command = ["cargo", "bench", "--bench", "peers", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    (program,) = [m["executable"] for m in messages if m.get("target", {}).get("name") == "peers"]
    return program


def peer_command(peer, path, experts):
    if peer == "flexmix":
        return ["Rscript", HERE / "peers.R", path, experts]
    return [sys.executable, "-B", HERE / "peers.py", peer, path, experts]


class Run:
    """The results so far, and where they are written."""

    def __init__(self, folder, results):
        self.folder = folder
        self.results = results

    def save(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.results, indent=1)
        (self.folder / "performance.json").write_text(text + "\n")
        path = self.folder / "performance.md"
        old = path.read_text() if path.exists() else ""
        path.write_text(document.text(self.results) + document.training(old))

    def skip(self, peer, reason):
        print(f"{peer}: skipped, {reason}", flush=True)
        if {"peer": peer, "reason": reason} not in self.results["skipped"]:
            self.results["skipped"].append({"peer": peer, "reason": reason})

    def compare(self, program, path, cell, peers, repeats):
        """Fits ours and each peer in turn, and adds one comparison per peer."""
        n, k, d = cell
        ours = Fitter([program, "fit", path, k])
        fitters, pairs, wanted = {}, {}, {}
        many = max(1, min(100, round(READABLE / ours.fit(1)["seconds"])))
        for peer in peers:
            try:
                fitters[peer] = Fitter(peer_command(peer, path, k))
            except FileNotFoundError:
                self.skip(peer, "Rscript is not installed")
                continue
            except Failure as failure:
                self.skip(peer, f"n={n}, K={k}, d={d}: {failure}")
                continue
            about = fitters[peer].about
            if "missing" in about:
                self.skip(peer, f"{about['missing']} is not installed")
                fitters.pop(peer).close()
                continue
            self.results["versions"].update(about["versions"])
            pairs[peer] = []
        while fitters:
            for peer in list(fitters):
                first = ours.fit(many)
                try:
                    pair = first, fitters[peer].fit(1)
                except Failure as failure:
                    self.skip(peer, f"n={n}, K={k}, d={d}: {failure}")
                    fitters.pop(peer).close()
                    continue
                pairs[peer].append(pair)
                seconds = pair[1]["seconds"]
                fewest = FEWEST if seconds < LONG else 2
                wanted.setdefault(peer, repeats or max(fewest, min(MOST, int(BUDGET / seconds))))
                if len(pairs[peer]) >= wanted[peer]:
                    fitters.pop(peer).close()
        self.results["versions"].update(ours.about["versions"])
        ours.close()
        for peer, measured in pairs.items():
            if measured:
                self.add(peer, cell, measured)
        self.save()

    def add(self, peer, cell, pairs):
        n, k, d = cell
        ours, theirs = pairs[-1]
        seconds_ours = statistics.median(pair[0]["seconds"] for pair in pairs)
        seconds_peer = statistics.median(pair[1]["seconds"] for pair in pairs)
        ratios = [pair[1]["seconds"] / pair[0]["seconds"] for pair in pairs]
        where = {"peer": peer, "n": n, "K": k, "d": d, "threads": 1}
        self.results["fit_vs_peers"].append(
            {
                **where,
                "ratio": seconds_peer / seconds_ours,
                "seconds_ours": seconds_ours,
                "seconds_peer": seconds_peer,
                "loglik_ours": ours["log_likelihood"],
                "loglik_peer": theirs["log_likelihood"],
            }
        )
        self.results["pairs"].append(
            {
                **where,
                "pairs": len(pairs),
                "median_ratio": statistics.median(ratios),
                "smallest_ratio": min(ratios),
                "largest_ratio": max(ratios),
                "passes_ours": ours["passes"],
                "stop_ours": ours["stop"],
                "iterations_peer": theirs["iterations"],
            }
        )
        print(
            f"n={n} K={k} d={d} {peer}: {seconds_peer:.4g} s / {seconds_ours:.4g} s = "
            f"{statistics.median(ratios):.1f} ({len(pairs)} pairs), log-likelihood ours - peer "
            f"{ours['log_likelihood'] - theirs['log_likelihood']:+.1e}",
            flush=True,
        )

    def take(self, program, part, quick):
        """Runs one of the measurements that need no peer."""
        print(f"{part} ...", flush=True)
        command = [program, part] + (["--quick"] if quick else [])
        environment = {**os.environ, **ONE_THREAD}
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        measured = json.loads(output.stdout)
        if part == "roofline":
            names = ("n", "K", "d", "threads", "fraction")
            passes = measured["passes"]
            self.results["roofline"] = [{name: one[name] for name in names} for one in passes]
            self.results["passes"] = passes
            self.results["limits"] = measured["limits"]
        else:
            self.results[part] = measured
        self.save()


def machine():
    """What a reader needs to know about the computer."""
    about = {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = [line.split(":", 1) for line in lines if ":" in line]
        about["processor"] = next(v.strip() for name, v in fields if name.strip() == "model name")
        flags = next(v.split() for name, v in fields if name.strip() == "flags")
        about["vectors"] = next((f for f in ("avx512f", "avx2") if f in flags), "sse2")
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        about["memory_gib"] = round(pages / 2**30, 1)
    except (OSError, StopIteration, ValueError):
        about.setdefault("processor", platform.processor() or "unknown")
    return about


def fresh_results(quick):
    compiler = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "machine": machine(),
        "versions": {"rustc": compiler.stdout.split()[1]},
        "fit_vs_peers": [],
        "roofline": [],
        "skipped": [],
        "pairs": [],
    }


def parse_cell(name):
    """A cell from its name, such as K3_d2_n10000."""
    k, d, n = (int(word[1:]) for word in name.split("_"))
    if (n, k, d) not in cells.every_cell():
        raise ValueError(name)
    return n, k, d


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small cells; writes to target/performance")
    parser.add_argument("--cells", nargs="+", type=parse_cell, metavar="CELL", help="such as K3_d2_n10000")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, help="pairs of fits per peer and cell; default: by their time")
    parser.add_argument("--resume", action="store_true", help="keep what the output folder has, measure the rest")
    parser.add_argument("--out", type=Path, help="default: docs")
    return parser.parse_args()


def main():
    wanted = arguments()
    folder = wanted.out or PROJECT / ("target/performance" if wanted.quick else "docs")
    program = build()
    results = fresh_results(wanted.quick)
    if wanted.resume and (folder / "performance.json").exists():
        results = json.loads((folder / "performance.json").read_text())
        results["skipped"] = [s for s in results["skipped"] if s["peer"] not in wanted.peers]
    run = Run(folder, results)
    if "fits" in wanted.parts:
        with tempfile.TemporaryDirectory() as data:
            for cell in wanted.cells or (QUICK_CELLS if wanted.quick else cells.every_cell()):
                done = {c["peer"] for c in results["fit_vs_peers"] if (c["n"], c["K"], c["d"]) == cell}
                peers = [peer for peer in wanted.peers if peer not in done]
                if peers:
                    run.compare(program, cells.write(Path(data), *cell), cell, peers, wanted.repeats)
    for part in PARTS[1:]:
        if part in wanted.parts and not results.get(part):
            run.take(program, part, wanted.quick)
    print(f"written: performance.json and performance.md in {folder}")


if __name__ == "__main__":
    main()
