"""Writes tests/data/train/planner-loss.tsv and planner-metrics.tsv: loss, gradients and metrics of
the planner by torch, in the formulas of Openpilot-Deepdive's model.py and utils.py.

Run: python bench/peers/planner_oracle.py tests/data/train     (needs torch; any version since 1.10)
Each line is `case<TAB>tensor<TAB>numbers with spaces`; floats are shortest decimals of f32.

Also planner-model.safetensors: loss and gradients of the whole network of planner.py, without and
with images, computed in f64 from f32 weights and inputs and rounded once.
"""

import sys

from pathlib import Path

import torch
import torch.nn.functional as F

from layers_oracle import save
from planner import INPUTS, POINTS, Planner, loss_of

FOLDER = sys.argv[1]
EPS = 1e-8


def line(out, case, name, tensor):
    values = tensor.detach().flatten().tolist()
    text = " ".join(f"{v:.9g}" for v in values)
    out.write(f"{case}\t{name}\t{text}\n")


def best_mode(rule, traj, gt):
    end, gt_end = traj[:, :, -1, :], gt[:, -1:, :].expand(-1, traj.shape[1], -1)
    if rule == "angle":
        return (1 - torch.nn.CosineSimilarity(dim=2, eps=EPS)(end, gt_end)).argmin(dim=1)
    if rule == "end_point":
        return F.mse_loss(end, gt_end, reduction="none").sum(-1).argmin(dim=1)
    every = gt[:, None].expand_as(traj)
    return F.mse_loss(traj, every, reduction="none").sum(dim=(2, 3)).argmin(dim=1)


def head(name, raw):
    if name == "linear":
        return raw
    return torch.cat((raw[..., 0:1].exp(), raw[..., 1:2].sinh(), raw[..., 2:3]), dim=-1)


def loss_case(out, case, rule, head_name, alpha, b, m, p, seed, ties=False):
    torch.manual_seed(seed)
    logits = (torch.randn(b, m) * 2).requires_grad_()
    raw = torch.randn(b, m, p, 3)
    if ties:
        raw[:, 1:] = raw[:, :1]
    raw = raw.requires_grad_()
    gt = torch.randn(b, p, 3) * torch.tensor([4.0, 1.5, 0.2]) + torch.tensor([3.0, 0.0, 0.0])
    traj = head(head_name, raw)
    with torch.no_grad():
        k = best_mode(rule, traj, gt)
    cls = torch.nn.CrossEntropyLoss()(logits, k)
    reg = torch.nn.SmoothL1Loss(reduction="none")(traj[torch.arange(b), k], gt).mean(dim=(0, 1))
    (cls + alpha * reg.mean()).backward()
    out.write(f"{case}\toptions\t{rule} {head_name} {alpha} {b} {m} {p}\n")
    line(out, case, "logits", logits)
    line(out, case, "raw", raw)
    line(out, case, "truth", gt)
    line(out, case, "best", k)
    line(out, case, "loss", torch.stack((cls, reg.mean())))
    line(out, case, "logits_gradient", logits.grad)
    line(out, case, "raw_gradient", raw.grad)


def metrics_case(out, b, m, p, seed):
    torch.manual_seed(seed)
    logits = torch.randn(b, m)
    t = torch.linspace(0, 1, p) ** 2
    gt = torch.stack((t * 70, 6 * t * t, 0.3 * t), dim=-1)[None] * torch.rand(b, 1, 1)
    traj = gt[:, None] + torch.randn(b, m, p, 3) * (0.2 + 2 * t)[None, None, :, None]
    pred = logits.argmax(-1)
    single = traj[torch.arange(b), pred]
    l2 = F.mse_loss(single, gt, reduction="none")
    best = best_mode("trajectory", traj, gt)
    euclid = l2.sum(-1).sqrt()
    line(out, "metrics", "shape", torch.tensor([b, m, p]))
    line(out, "metrics", "logits", logits)
    line(out, "metrics", "trajectories", traj)
    line(out, "metrics", "truth", gt)
    line(out, "metrics", "l2_dist", l2.mean())
    line(out, "metrics", "cls_acc", (best == pred).float().mean())
    line(out, "metrics", "ade_fde", torch.stack((euclid.mean(), euclid[:, -1].mean())))
    for low, high in ((0, 10), (10, 20), (20, 30), (30, 50), (50, 1000)):
        mask = (gt[..., 0] >= low) & (gt[..., 0] < high)
        values = [mask.sum().float()]
        if mask.any():
            values += [v[mask].mean() for v in (euclid, l2[..., 0].sqrt(), l2[..., 1].sqrt())]
            values += [(euclid < limit)[mask].float().mean() for limit in (0.5, 1, 2)]
        line(out, "metrics", f"range_{low}_{high}", torch.stack(values))


# Names of src/train/planner for those of planner.py.
NAMES = {
    "convolutions.": "image.convolution",
    "projection.": "image.projection.",
    "cell.weight_ih_l0": "cell.input.weight",
    "cell.weight_hh_l0": "cell.hidden.weight",
    "cell.bias_ih_l0": "cell.input.bias",
    "cell.bias_hh_l0": "cell.hidden.bias",
    "hidden.": "head.hidden.",
    "output.": "head.output.",
}


def own_name(name):
    for theirs, own in NAMES.items():
        if name.startswith(theirs):
            return own + name[len(theirs) :]
    return name


def model_case(out, case, channels, image, seed, hidden=6, modes=2, steps=4, samples=3):
    torch.manual_seed(seed)
    planner = Planner(hidden, modes, channels, image)
    given = {
        "inputs": torch.randn(steps, samples, INPUTS),
        "images": torch.rand(steps, samples, 2, *image) * (torch.rand(steps, samples, 1, 1, 1) < 0.8),
        "carried": torch.randn(1, samples, hidden) * 0.5,
        "speeds": torch.rand(steps * samples) * 3,
        "targets": torch.randn(steps * samples, POINTS, 3) * 2,
    }
    # Larger than at the start, so that all layers matter.
    weights = {name: torch.randn(p.shape) * 0.4 for name, p in planner.named_parameters()}
    planner.load_state_dict(weights)
    planner = planner.double()
    exact = {name: value.double() for name, value in given.items()}
    times = 5 * (torch.arange(POINTS).double() / (POINTS - 1)) ** 2
    straight = torch.zeros(steps * samples, POINTS, 3).double()
    straight[:, :, 0] = (exact["speeds"][:, None] * times).float().double()
    outputs, last = planner(exact["inputs"], exact["carried"], exact["images"])
    loss = loss_of(outputs, straight, exact["targets"])
    loss.backward()
    out |= {f"{case}.{name}": value for name, value in given.items()}
    out |= {f"{case}.weights.{own_name(name)}": value for name, value in weights.items()}
    out |= {f"{case}.{own_name(name)}": p.grad for name, p in planner.named_parameters()}
    out |= {f"{case}.loss": loss[None], f"{case}.last": last}


model = {}
model_case(model, "numbers", (), (2, 2), 11)
model_case(model, "images", (3, 4), (8, 4), 12)
save(Path(FOLDER) / "planner-model.safetensors", model)
with open(f"{FOLDER}/planner-loss.tsv", "w") as out:
    out.write(f"# made by bench/peers/planner_oracle.py with torch {torch.__version__}\n")
    loss_case(out, "original", "angle", "original", 1.0, 2, 5, 33, 1)
    loss_case(out, "one-mode", "angle", "original", 1.0, 3, 1, 4, 2)
    loss_case(out, "ties", "angle", "original", 1.0, 3, 4, 4, 3, ties=True)
    loss_case(out, "alpha", "angle", "linear", 0.25, 5, 3, 2, 4)
    loss_case(out, "end-point", "end_point", "original", 1.0, 4, 4, 3, 5)
    loss_case(out, "trajectory", "trajectory", "linear", 2.0, 6, 3, 5, 6)
with open(f"{FOLDER}/planner-metrics.tsv", "w") as out:
    out.write(f"# made by bench/peers/planner_oracle.py with torch {torch.__version__}\n")
    metrics_case(out, 6, 3, 33, 7)
