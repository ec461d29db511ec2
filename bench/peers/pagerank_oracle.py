"""Writes tests/data/pagerank-oracle.txt: PageRank of the Langville-Meyer graph under every option.

networkx where it has the option; a dense solution where it has not (dangling=ignore).
Run: python bench/peers/pagerank_oracle.py > tests/data/pagerank-oracle.txt
"""

import networkx as nx
import numpy as np

EDGES = [(1, 2), (1, 3), (3, 1), (3, 2), (3, 5), (4, 5), (4, 6), (5, 4), (5, 6), (6, 4)]
G = nx.DiGraph(EDGES)
NODES = range(1, 7)
P = {1: 1.0, 4: 3.0, 6: 0.5}
START = {4: 1.0, 3: 0.25}
DANGLING = {1: 2.0, 2: 3.0}
EXACT = {"tol": 1e-16, "max_iter": 1000}


def show(name, ranks):
    print(f"{name}:", *(repr(float(ranks[v])) for v in NODES))


def rank(**options):
    # 1e-16 times 6 nodes is reached exactly at the fixed point of f64 on this graph.
    return nx.pagerank(G, **{**EXACT, **options})


def one_step(nstart):
    return nx.pagerank(G, nstart=nstart, tol=1e9)


def ignore(alpha=0.85):
    """x = alpha * A' x + (1 - alpha) / n, whose sum is below 1."""
    a = np.zeros((6, 6))
    for u, v in EDGES:
        a[v - 1, u - 1] += 1 / G.out_degree(u)
    x = np.linalg.solve(np.eye(6) - alpha * a, np.full(6, (1 - alpha) / 6))
    return dict(zip(NODES, x))


print("# Langville-Meyer, alpha 0.85, made by bench/peers/pagerank_oracle.py with networkx",
      nx.__version__)
show("plain", rank())
show("personalization", rank(personalization=P))
show("nstart", rank(nstart=START))
show("one-step-from-nstart", one_step(START))
show("dangling-given", rank(dangling=DANGLING))
show("personalization+dangling-given", rank(personalization=P, dangling=DANGLING))
uniform = {v: 1.0 for v in NODES}
show("dangling-uniform", rank(dangling=uniform))
show("personalization+dangling-uniform", rank(personalization=P, dangling=uniform))
show("dangling-ignore", ignore())
show("sumn", {v: 6 * x for v, x in rank().items()})
