"""Writes tests/data/optimizer/*.f32: parameters and moments after 25 steps of PyTorch's fused rules.

1024 elements. Values come from a formula that both sides compute exactly: integers mixed in 32 bits
and scaled by a power of two. A file holds p, then m and v where the rule has them, as little-endian
f32. The names and hyper-parameters below are repeated in src/optimizer/oracle_tests.rs.

Run: bench/peers/.venv/bin/python bench/peers/adamw_oracle.py     (pip install torch numpy)
"""

import pathlib

import numpy as np
import torch

N, STEPS = 1024, 25
FOLDER = pathlib.Path(__file__).parents[2] / "tests/data/optimizer"


def values(salt):
    """Numbers in [-1, 1), multiples of 2^-23: f32 holds them exactly."""
    with np.errstate(over="ignore"):
        x = np.arange(N, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(salt) * np.uint32(40503)
        x ^= x >> np.uint32(15)
        x *= np.uint32(2246822519)
        x ^= x >> np.uint32(13)
        x *= np.uint32(3266489917)
        x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.int64) - 2**23).astype(np.float32) * np.float32(2**-23)


def gradient(step):
    """Of many sizes: element i is scaled by 2^-(i mod 16); every 37th is zero."""
    scale = np.float32(2.0) ** -(np.arange(N) % 16).astype(np.float32)
    g = values(step) * scale
    g[np.arange(N) % 37 == step % 37] = 0
    return g


def run(name, make, state):
    p = torch.nn.Parameter(torch.from_numpy(values(1000).copy()))
    optimizer = make([p])
    for step in range(1, STEPS + 1):
        p.grad = torch.from_numpy(gradient(step))
        optimizer.step()
    parts = [p.detach()] + [optimizer.state[p][key] for key in state]
    (FOLDER / f"{name}.f32").write_bytes(b"".join(x.numpy().astype("<f4").tobytes() for x in parts))


def adamw(**h):
    return lambda p: torch.optim.AdamW(p, fused=True, **h)


def adam(**h):
    return lambda p: torch.optim.Adam(p, fused=True, **h)


def sgd(**h):
    return lambda p: torch.optim.SGD(p, fused=True, **h)


MOMENTS = ["exp_avg", "exp_avg_sq"]
BUFFER = ["momentum_buffer"]
FOLDER.mkdir(parents=True, exist_ok=True)
run("adamw-default", adamw(lr=1e-3), MOMENTS)
run("adamw-gpt", adamw(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1), MOMENTS)
run("adamw-no-decay", adamw(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0), MOMENTS)
run("adamw-short-memory", adamw(lr=3e-3, betas=(0.3, 0.4), eps=1e-3, weight_decay=1), MOMENTS)
run("adam-l2", adam(lr=2e-3, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.05), MOMENTS)
run("adam-plain", adam(lr=1e-3), MOMENTS)
run("sgd-momentum", sgd(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01), BUFFER)
run("sgd-nesterov", sgd(lr=0.03, momentum=0.85, nesterov=True, weight_decay=0.02), BUFFER)
run("sgd-plain", sgd(lr=0.1, weight_decay=0.003), [])
print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
