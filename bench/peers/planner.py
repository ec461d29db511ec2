"""The planner of src/train/planner/model.rs in PyTorch: its speed.

    bench/peers/.venv/bin/python bench/peers/planner.py [threads] [batch] [steps]

prints the milliseconds of a step of the optimizer on one chunk (forward, loss, backward, clipping,
Adam) and the sample steps a second, as the best and the median of the steps. Embedding and head run
once over all rows, and the recurrent layer is PyTorch's own over the whole chunk, its fastest form.
Compare with

    rankwise --threads 1 --ranks 1 train examples/planner.toml

whose step has micro_batches times examples windows: batch = 32 here. Data costs nothing here.
"""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

HIDDEN, MODES, POINTS, CHUNK, INPUTS = 128, 5, 33, 20, 5


class Planner(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(INPUTS, HIDDEN)
        self.cell = nn.GRU(HIDDEN, HIDDEN)
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, MODES * (1 + POINTS * 3))

    def forward(self, inputs, carried):
        states, last = self.cell(F.elu(self.embedding(inputs)), carried)
        return self.output(F.elu(self.hidden(states))), last


def loss_of(outputs, straight, truth):
    """The residual head, the nearest end point, cross-entropy and smooth-L1."""
    logits, numbers = outputs.flatten(0, 1).split([MODES, MODES * POINTS * 3], dim=1)
    trajectories = numbers.view(-1, MODES, POINTS, 3) + straight[:, None]
    with torch.no_grad():
        ends = trajectories[:, :, -1] - truth[:, None, -1]
        best = ends.square().sum(-1).argmin(1)
    chosen = trajectories[torch.arange(len(best)), best]
    return F.cross_entropy(logits, best) + F.smooth_l1_loss(chosen, truth)


def main():
    given = sys.argv[1:]
    threads, batch, steps = (int(a) for a in given + ["1", "32", "100"][len(given):])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    planner = Planner()
    optimizer = torch.optim.Adam(planner.parameters(), lr=1e-3, fused=True)
    inputs = torch.randn(CHUNK, batch, INPUTS)
    truth = torch.randn(CHUNK * batch, POINTS, 3)
    straight = torch.randn(CHUNK * batch, POINTS, 3)
    carried = torch.zeros(1, batch, HIDDEN)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        outputs, last = planner(inputs, carried)
        loss_of(outputs, straight, truth).backward()
        nn.utils.clip_grad_norm_(planner.parameters(), 1.0)
        optimizer.step()
        carried = last.detach()
        times.append(time.perf_counter() - start)
    times.sort()
    for name, seconds in (("best", times[0]), ("median", times[len(times) // 2])):
        print(f"{name}: {seconds * 1e3:.2f} ms, {CHUNK * batch / seconds:.0f} sample steps/s")


if __name__ == "__main__":
    main()
