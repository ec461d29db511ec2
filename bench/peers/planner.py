"""The planner of src/train/planner/model.rs in PyTorch, and the time of a step of both.

    cargo build --release
    bench/peers/.venv/bin/python bench/peers/planner.py [threads] [rounds] [steps] [binary]

A step of the optimizer is one chunk of 20 steps of 32 windows: forward, loss, backward, clipping,
Adam, on numbers alone (no images). Both run in turns, `rounds` times `steps` steps each, with the
same number of threads; a round's time is its wall time over its steps. Prints each round, the
medians, and the ratio PyTorch / rankwise: above 1, rankwise is faster.

What is not alike is to our disadvantage: rankwise cuts its windows from drives meanwhile, PyTorch
sees one batch of random numbers again and again; and its recurrent layer is PyTorch's own over the
whole chunk, its fastest form.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

HIDDEN, MODES, POINTS, CHUNK, INPUTS, BATCH = 128, 5, 33, 20, 5, 32

CONFIG = f"""
[model]
kind = "planner"
hidden = {HIDDEN}
modes = {MODES}
chunk = {CHUNK}
[data]
held_out = 0.0
[data.synthetic]
vehicles = 500
seconds = 60.0
[training]
micro_batches = 1
examples = {BATCH}
log_every = 1000000
[optimizer]
rule = "adam"
[schedule]
lr = 1e-3
"""


class Planner(nn.Module):
    """Numbers, and images of two channels if there are `channels` of convolutions."""

    def __init__(self, hidden=HIDDEN, modes=MODES, channels=(), image=(32, 32)):
        super().__init__()
        sizes = [2, *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in zip(sizes, sizes[1:])
        )
        flat = sizes[-1] * (image[0] >> len(channels)) * (image[1] >> len(channels))
        self.projection = nn.Linear(flat, hidden, bias=False) if channels else None
        self.embedding = nn.Linear(INPUTS, hidden)
        self.cell = nn.GRU(hidden, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, modes * (1 + POINTS * 3))

    def forward(self, inputs, carried, images=None):
        embedded = self.embedding(inputs)
        if self.projection is not None:
            seen = images.flatten(0, 1)
            for convolution in self.convolutions:
                seen = F.elu(convolution(seen))
            embedded = embedded + self.projection(seen.flatten(1)).view_as(embedded)
        states, last = self.cell(F.elu(embedded), carried)
        return self.output(F.elu(self.hidden(states))), last


def loss_of(outputs, straight, truth):
    """The residual head, the nearest end point, cross-entropy and smooth-L1."""
    outputs = outputs.flatten(0, 1)
    modes = outputs.shape[1] // (1 + POINTS * 3)
    logits, numbers = outputs.split([modes, modes * POINTS * 3], dim=1)
    trajectories = numbers.view(-1, modes, POINTS, 3) + straight[:, None]
    with torch.no_grad():
        ends = trajectories[:, :, -1] - truth[:, None, -1]
        best = ends.square().sum(-1).argmin(1)
    chosen = trajectories[torch.arange(len(best)), best]
    return F.cross_entropy(logits, best) + F.smooth_l1_loss(chosen, truth)


class Torch:
    """Steps of PyTorch."""

    def __init__(self):
        torch.manual_seed(0)
        self.planner = Planner()
        self.optimizer = torch.optim.Adam(self.planner.parameters(), lr=1e-3, fused=True)
        self.inputs = torch.randn(CHUNK, BATCH, INPUTS)
        self.truth = torch.randn(CHUNK * BATCH, POINTS, 3)
        self.straight = torch.randn(CHUNK * BATCH, POINTS, 3)
        self.carried = torch.zeros(1, BATCH, HIDDEN)

    def milliseconds(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            outputs, last = self.planner(self.inputs, self.carried)
            loss_of(outputs, self.straight, self.truth).backward()
            nn.utils.clip_grad_norm_(self.planner.parameters(), 1.0)
            self.optimizer.step()
            self.carried = last.detach()
        return (time.perf_counter() - start) / steps * 1e3


def rankwise(binary, config, threads, steps):
    """Milliseconds of a step of one run, the making of the drives apart."""
    options = ["--json", "--ranks", "1", "--threads", str(threads)]
    command = [binary, *options, "train", str(config), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stdout} {done.stderr}")
    return json.loads(done.stdout)["seconds"]["train"] / steps * 1e3


def main():
    given = sys.argv[1:]
    binary = str(Path(__file__).resolve().parents[2] / "target" / "release" / "rankwise")
    threads, rounds, steps, binary = given + ["1", "7", "200", binary][len(given) :]
    threads, rounds, steps = int(threads), int(rounds), int(steps)
    torch.set_num_threads(threads)
    peer = Torch()
    peer.milliseconds(20)  # warm up
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "planner.toml"
        config.write_text(CONFIG)
        for number in range(1, rounds + 1):
            # Whoever comes second may find a warmer machine: they take turns in that, too.
            turns = [lambda: theirs.append(peer.milliseconds(steps))]
            turns.append(lambda: ours.append(rankwise(binary, config, threads, steps)))
            for turn in turns if number % 2 else reversed(turns):
                turn()
            print(
                f"round {number}: rankwise {ours[-1]:.2f} ms, PyTorch {theirs[-1]:.2f} ms, "
                f"ratio {theirs[-1] / ours[-1]:.2f}"
            )
    ratios = [their / our for our, their in zip(ours, theirs)]
    print(
        f"{threads} threads, median of {rounds} rounds of {steps} steps: "
        f"rankwise {statistics.median(ours):.2f} ms, PyTorch {statistics.median(theirs):.2f} ms, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
