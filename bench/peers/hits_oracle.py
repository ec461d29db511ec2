#!/usr/bin/env python3
"""Writes the expected scores of tests/hits.rs with the power iteration of networkx.

Usage: hits_oracle.py FOLDER_WITH_GRAPHS > tests/data/hits-oracle.txt
`networkx.hits` takes singular vectors of a sparse solver; `_hits_python` is the iteration.
"""
import sys

import networkx as nx
from networkx.algorithms.link_analysis.hits_alg import _hits_python

CASES = [
    ("langville-meyer.txt", False, int),
    ("debian-core.txt", False, str),
    ("weighted.tsv", True, int),
    ("weighted.tsv", False, int),
    ("web.txt", False, int),
]

print(f"# networkx {nx.__version__}, _hits_python, tol 1e-13; file, weights: hubs; authorities")
for name, weighted, kind in CASES:
    graph = nx.DiGraph()
    for line in open(f"{sys.argv[1]}/{name}"):
        if line.strip() and not line.startswith(("#", "%")):
            columns = line.replace(",", " ").split()
            source, target = kind(columns[0]), kind(columns[1])
            weight = float(columns[2]) if weighted else 1.0
            # Repeated edges add up.
            if graph.has_edge(source, target):
                weight += graph[source][target]["weight"]
            graph.add_edge(source, target, weight=weight)
    hubs, authorities = _hits_python(graph, max_iter=10000, tol=1e-13)
    order = sorted(graph)
    rows = [" ".join(repr(float(scores[node])) for node in order) for scores in (hubs, authorities)]
    print(f"{name},{int(weighted)}:{';'.join(rows)}")
