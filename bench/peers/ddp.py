"""What DistributedDataParallel and AdamW(fused=True) take over gloo, beside the sharded step here.

    cargo bench --bench optimizer --no-run
    bench/peers/.venv/bin/python bench/peers/ddp.py [millions] [steps] [rounds]

(pip install torch numpy.) Two processes, one thread each: gradients are all-reduced in buckets of
25 MB, as DistributedDataParallel does by default, but all at once and without a backward pass;
then AdamW steps all parameters on each. rankwise runs under mpirun with two ranks on the same
number of parameters, cut into the same tensors. The two take turns, so that a machine that gets
slower is slower for both; medians over steps, and of those the median over rounds.
"""

import glob
import os
import re
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

MILLIONS, STEPS, ROUNDS = (
    int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 50), (2, 10), (3, 3))
)
TENSOR = 1 << 20
BUCKET = 25 * (1 << 20) // 4


def worker(rank, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29417")
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {rank})
    dist.init_process_group("gloo", rank=rank, world_size=2)
    n = MILLIONS * 1_000_000
    gradients = torch.rand(n) - 0.5
    parameters = []
    for start in range(0, n, TENSOR):
        parameter = torch.nn.Parameter(torch.rand(min(TENSOR, n - start)))
        parameter.grad = gradients[start : start + TENSOR]
        parameters.append(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    times = []
    for _ in range(STEPS + 2):
        dist.barrier()
        start = time.perf_counter()
        buckets = gradients.split(BUCKET)
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()
        gradients.div_(2)
        reduced = time.perf_counter()
        optimizer.step()
        dist.barrier()
        times.append((time.perf_counter() - start, reduced - start))
    whole, reduction = (statistics.median(column) for column in zip(*times[2:]))
    if rank == 0:
        results.put((whole, reduction))
    dist.destroy_process_group()


def torch_round():
    context = mp.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=worker, args=(rank, results)) for rank in range(2)]
    for process in processes:
        process.start()
    result = results.get(timeout=600)
    for process in processes:
        process.join()
    return result


def rankwise_round():
    built = [path for path in glob.glob("target/release/deps/optimizer-*") if "." not in path]
    if not built:
        sys.exit("build the bench first: cargo bench --bench optimizer --no-run")
    command = ["mpirun", "-n", "2", "--bind-to", "core", max(built, key=os.path.getmtime)]
    text = subprocess.run(
        command + [str(MILLIONS), str(STEPS)], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^((?:f32|bf16).*?) +([\d.]+) +\d+ +[\d.]+ +[\d.]+ +\d+%$", text, re.M)
    return {way.strip(): float(ns) * MILLIONS for way, ns in rows}, text


def main():
    print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
    whole, reduction, ours = [], [], {}
    for _ in range(ROUNDS):
        seconds, reduced = torch_round()
        whole.append(seconds * 1e3)
        reduction.append(reduced * 1e3)
        milliseconds, text = rankwise_round()
        for way, value in milliseconds.items():
            ours.setdefault(way, []).append(value)
    print(text)
    peer = statistics.median(whole)
    print(f"gloo all_reduce + AdamW(fused): {peer:.1f} ms, of which the all_reduce "
          f"{statistics.median(reduction):.1f}; rounds {[round(x) for x in whole]}")
    for way, values in ours.items():
        value = statistics.median(values)
        print(f"{way:<24} {value:7.1f} ms   {peer / value:5.2f} x faster")


if __name__ == "__main__":
    main()
