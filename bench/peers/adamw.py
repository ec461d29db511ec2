"""Nanoseconds a parameter of torch.optim.AdamW(fused=True) on the CPU, as bench/step.rs measures ours.

Run: bench/peers/.venv/bin/python bench/peers/adamw.py     (pip install torch numpy)
"""

import statistics
import time

import torch


def measure(n, threads, repeats=40):
    torch.set_num_threads(threads)
    p = torch.nn.Parameter(torch.rand(n))
    p.grad = torch.rand(n) - 0.4
    optimizer = torch.optim.AdamW([p], lr=1e-3, fused=True)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        optimizer.step()
        times.append((time.perf_counter() - start) / n * 1e9)
    return statistics.median(times[3:]), min(times[3:])


print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
for threads in (1, 2):
    for n in (1 << 20, 16 << 20):
        median, best = measure(n, threads)
        print(f"{threads} threads, {n >> 20:2} M: median {median:.3f}, best {best:.3f} ns/parameter")
