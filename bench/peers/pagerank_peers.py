#!/usr/bin/env python3
"""PageRank side by side with networkx, igraph, NetworKit and rustworkx, from a text edge list.

Makes Kronecker and uniform graphs with `rankwise graph generate` (symmetrised, repeated edges
merged), ranks each with every program one after another, each in a process of its own, checks that
the ranks agree, and prints the ratio of times. End to end: from the text to the ranks in memory
(ours: to ranks in a file, with the start of the processes). Per iteration: the difference of two
runs with different numbers of steps, where a program can be stopped after a number of steps; the
others have none. Memory: the largest resident memory of the process (ours: of all processes
together), of which Python and its modules are 0.1 to 0.2 GB.

    python3 -m venv bench/peers/.venv
    bench/peers/.venv/bin/pip install networkx scipy igraph networkit rustworkx
    bench/peers/.venv/bin/python bench/peers/pagerank_peers.py --binary target/release/rankwise \
        [--ranks 2] [--mpirun] [--peers networkit,igraph] [--skip-slow] kron:16 uniform:16

`--skip-slow` leaves out networkx and rustworkx for graphs of 2^20 nodes and more.
"""
import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time

import numpy as np

ALPHA, STEPS = 0.85, 50


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def ours(options, path, folder):
    """Ranks by id, seconds from start to end of the process, seconds a step, bytes of memory, and
    seconds by phase."""
    output = os.path.join(folder, "ranks.csv")
    command = [options.binary, "pagerank", path, "--json", "--output", output, "--stop", "l1",
               "--tol", "1e-10", "--max-iter", "1000"]
    if options.mpirun:
        command = ["mpirun", "--allow-run-as-root", "-n", str(options.ranks)] + command
    else:
        command += ["--ranks", str(options.ranks)]
    done, seconds = timed(lambda: subprocess.run(command, capture_output=True, check=True))
    report = json.loads(done.stdout)
    table = np.loadtxt(output, delimiter=",", skiprows=1)
    ranks = dict(zip(table[:, 0].astype(np.int64).tolist(), table[:, 1].tolist()))
    memory = report["peak_rss_bytes_by_rank"]
    memory = sum(memory) if options.mpirun else max(memory)
    step = report["seconds"]["iterate"] / report["iterations"]
    return ranks, seconds, step, memory, report["seconds"]


def networkx_ranks(path):
    import networkx as nx

    graph, load = timed(lambda: nx.read_edgelist(path, nodetype=int, create_using=nx.DiGraph))
    n = graph.number_of_nodes()
    ranks, run = timed(lambda: nx.pagerank(graph, alpha=ALPHA, tol=1e-10 / n, max_iter=1000))
    # The kernel alone, without the conversion to a matrix that every call repeats.
    step = steps(lambda count: scipy_steps(graph, count))
    return ranks, load + run, step


def scipy_steps(graph, count):
    import networkx as nx
    import scipy as sp

    matrix = scipy_steps.cache.get(id(graph))
    if matrix is None:
        matrix = nx.to_scipy_sparse_array(graph, dtype=float)
        sums = matrix.sum(axis=1)
        scale = np.divide(1.0, sums, where=sums != 0, out=np.zeros_like(sums))
        matrix = scipy_steps.cache[id(graph)] = sp.sparse.dia_array((scale, 0), matrix.shape) @ matrix
    n = matrix.shape[0]
    x = np.full(n, 1.0 / n)
    for _ in range(count):
        last = x
        x = ALPHA * (x @ matrix) + (1 - ALPHA) / n
        np.abs(x - last).sum()


scipy_steps.cache = {}


def steps(run):
    """Seconds a step, as the difference of a long and a short run."""
    run(2)
    _, short = timed(lambda: run(5))
    _, long = timed(lambda: run(5 + STEPS))
    return (long - short) / STEPS


def networkit_ranks(path):
    import networkit as nk

    def read():
        reader = nk.graphio.EdgeListReader("\t", 0, directed=True, continuous=False)
        graph = reader.read(path)
        return graph, reader.getNodeMap()

    def rank(graph, most=10000, tolerance=1e-10):
        sinks = nk.centrality.SinkHandling.DistributeSinks
        work = nk.centrality.PageRank(graph, damp=ALPHA, tol=tolerance, distributeSinks=sinks)
        work.norm = nk.centrality.Norm.L1_NORM
        work.maxIterations = most
        work.run()
        return work.scores()

    (graph, nodes), load = timed(read)
    scores, run = timed(lambda: rank(graph))
    ranks = {int(name): scores[index] for name, index in nodes.items()}
    return ranks, load + run, steps(lambda count: rank(graph, count, 1e-300))


def igraph_ranks(path):
    import igraph

    def read():
        table = np.loadtxt(path, dtype=np.int64, delimiter="\t")
        ids, flat = np.unique(table, return_inverse=True)
        return igraph.Graph(n=len(ids), edges=flat.reshape(-1, 2), directed=True), ids

    (graph, ids), load = timed(read)
    scores, run = timed(lambda: graph.pagerank(damping=ALPHA, implementation="prpack"))
    return dict(zip(ids.tolist(), scores)), load + run, None


def rustworkx_ranks(path):
    import rustworkx as rx

    def read():
        table = np.loadtxt(path, dtype=np.int64, delimiter="\t")
        ids, flat = np.unique(table, return_inverse=True)
        graph = rx.PyDiGraph(multigraph=False)
        graph.add_nodes_from(ids.tolist())
        graph.add_edges_from_no_data(list(map(tuple, flat.reshape(-1, 2).tolist())))
        return graph, ids

    (graph, ids), load = timed(read)
    n = len(ids)
    scores, run = timed(
        lambda: rx.pagerank(graph, alpha=ALPHA, tol=1e-10 / n, max_iter=1000))
    return {int(ids[node]): rank for node, rank in scores.items()}, load + run, None


PEERS = {
    "networkx": networkx_ranks,
    "networkit": networkit_ranks,
    "igraph": igraph_ranks,
    "rustworkx": rustworkx_ranks,
}
# Minutes and tens of gigabytes from this scale on.
SLOW, SLOW_FROM_SCALE = ("networkx", "rustworkx"), 20


def measured(name, path, pipe):
    """Runs a peer; for a process of its own, so that its memory is seen."""
    ranks, seconds, step = PEERS[name](path)
    ids = np.fromiter(ranks.keys(), np.int64, len(ranks))
    values = np.fromiter(ranks.values(), np.float64, len(ranks))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send((ids, values, seconds, step, memory))


def apart(name, path):
    """The ranks of a peer by id, seconds in all, seconds a step or None, and bytes of memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measured, args=(name, path, sender))
    process.start()
    sender.close()
    try:
        ids, values, seconds, step, memory = receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{name} ended with exit code {process.exitcode}") from None
    process.join()
    return dict(zip(ids.tolist(), values.tolist())), seconds, step, memory


def compare(spec, options, folder):
    """All programs on one graph."""
    path = os.path.join(folder, "graph.txt")
    command = [options.binary, "graph", "generate", spec, "--undirected", "--duplicates", "merge",
               "--output", path, "--json"]
    made = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    edges = made["edges"]
    print(f"\n{spec}: {made['vertices']} nodes, {edges} edges, {made['bytes'] / 1e6:.0f} MB of "
          f"text; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.ranks} ranks",
          flush=True)
    expected, total, step, memory, phases = ours(options, path, folder)
    print(", ".join(f"{phase} {seconds:.3f} s" for phase, seconds in phases.items()))
    print(f"{'':10} {'end to end s':>13} {'÷ ours':>8} {'ns an edge':>11} {'÷ ours':>8} "
          f"{'memory MB':>10} {'÷ ours':>8} {'max difference':>15}")
    print(f"{'rankwise':10} {total:13.3f} {1:8.1f} {step * 1e9 / edges:11.3f} {1:8.1f} "
          f"{memory / 1e6:10.0f} {1:8.1f}", flush=True)
    scale = int(spec.split(":")[1])
    for name in options.peers.split(","):
        if options.skip_slow and name in SLOW and scale >= SLOW_FROM_SCALE:
            print(f"{name:10} {'skipped':>13}")
            continue
        ranks, seconds, own_step, own_memory = apart(name, path)
        assert ranks.keys() == expected.keys(), f"{name} has other nodes"
        most = max(abs(ranks[node] - rank) for node, rank in expected.items())
        per_step = f"{own_step * 1e9 / edges:11.3f} {own_step / step:8.1f}" if own_step \
            else f"{'-':>11} {'-':>8}"
        print(f"{name:10} {seconds:13.3f} {seconds / total:8.1f} {per_step} "
              f"{own_memory / 1e6:10.0f} {own_memory / memory:8.1f} {most:15.1e}", flush=True)
        assert most < 1e-8, f"{name} disagrees"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--binary", default="target/release/rankwise")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--mpirun", action="store_true")
    parser.add_argument("--peers", default=",".join(PEERS), help="names between commas")
    parser.add_argument("--skip-slow", action="store_true",
                        help=f"leave out {' and '.join(SLOW)} from 2^{SLOW_FROM_SCALE} nodes on")
    parser.add_argument("graphs", nargs="+")
    options = parser.parse_args()
    unknown = [name for name in options.peers.split(",") if name not in PEERS]
    if unknown:
        parser.error(f"--peers {','.join(unknown)}: choose from {','.join(PEERS)}")
    for spec in options.graphs:
        with tempfile.TemporaryDirectory() as folder:
            compare(spec, options, folder)


if __name__ == "__main__":
    main()
