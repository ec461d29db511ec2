"""Outputs and gradients of PyTorch's layers and of a tiny GPT, for the tests of src/train.

    python3 -m venv bench/peers/.venv && bench/peers/.venv/bin/pip install torch numpy
    bench/peers/.venv/bin/python bench/peers/layers_oracle.py

Writes tests/data/train/layers.safetensors and gpt.safetensors. Everything is computed in f64 from
f32 inputs and rounded once, so that the files hold the truth and not PyTorch's own rounding.
"""

import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

from gpt import GPT, Config

OUT = Path(__file__).resolve().parents[2] / "tests" / "data" / "train"
torch.manual_seed(20240607)


def save(path, tensors):
    """The safetensors format: length of the header, header as JSON, data."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        dtype = "I32" if not tensor.is_floating_point() else "F32"
        tensor = tensor.to(torch.int32 if dtype == "I32" else torch.float32)
        raw = tensor.numpy().tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(path.name, path.stat().st_size, "bytes")


def number(*shape, scale=1.0):
    """f32 values, held in f64, that take part in the gradient."""
    return (torch.randn(*shape) * scale).double().requires_grad_()


def case(out, name, function, **inputs):
    """Stores inputs, output `y`, its gradient `dy` and the gradients of all inputs."""
    y = function(**inputs)
    dy = torch.randn(y.shape).double()
    y.backward(dy)
    for key, value in inputs.items():
        out[f"{name}.{key}"] = value
        if value.is_floating_point():
            out[f"{name}.d{key}"] = value.grad
    out[f"{name}.y"] = y
    out[f"{name}.dy"] = dy


def attention(qkv, heads):
    examples, length, triple = qkv.shape
    q, k, v = (
        part.view(examples, length, heads, -1).transpose(1, 2) for part in qkv.split(triple // 3, 2)
    )
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(examples, length, triple // 3)


def gru(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    """All steps of torch.nn.GRU, time first."""
    layer = torch.nn.GRU(x.shape[2], h.shape[1]).double()
    parameters = {
        "weight_ih_l0": weight_ih,
        "weight_hh_l0": weight_hh,
        "bias_ih_l0": bias_ih,
        "bias_hh_l0": bias_hh,
    }
    return torch.func.functional_call(layer, parameters, (x, h[None]))[0]


def layers():
    out = {}
    case(out, "linear", lambda x, w, b: F.linear(x, w, b), x=number(7, 5), w=number(9, 5), b=number(9))
    tokens = torch.tensor([3, 0, 5, 3, 3, 1])
    case(out, "embedding", lambda table, tokens: table[tokens], table=number(6, 4), tokens=tokens)
    case(
        out,
        "layer_norm",
        lambda x, g, b: F.layer_norm(x, (37,), g, b, 1e-5),
        x=number(6, 37, scale=2.0),
        g=number(37),
        b=number(37),
    )
    case(out, "gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), x=number(97, scale=2.0))
    case(out, "gelu_erf", lambda x: F.gelu(x), x=number(97, scale=2.0))
    case(out, "elu", lambda x: F.elu(x), x=number(97))
    case(out, "relu", lambda x: F.relu(x), x=number(97))
    case(out, "tanh", lambda x: torch.tanh(x), x=number(97))
    case(out, "logistic", lambda x: torch.sigmoid(x), x=number(97))
    for name, (examples, length, width, heads) in {
        "attention_short": (2, 5, 12, 3),
        "attention_long": (1, 130, 8, 2),
    }.items():
        case(out, name, lambda qkv, h=heads: attention(qkv, h), qkv=number(examples, length, 3 * width))
    case(
        out,
        "gru",
        gru,
        x=number(4, 3, 5),
        h=number(3, 7),
        weight_ih=number(21, 5, scale=0.5),
        weight_hh=number(21, 7, scale=0.5),
        bias_ih=number(21, scale=0.5),
        bias_hh=number(21, scale=0.5),
    )
    for name, (kernel, stride, padding) in {
        "conv_same": (3, 1, 1),
        "conv_stride": (3, 2, 1),
        "conv_even": (2, 2, 0),
        "conv_wide": (5, 2, 3),
    }.items():
        case(
            out,
            name,
            lambda x, w, b, s=stride, p=padding: F.conv2d(x, w, b, s, p),
            x=number(2, 3, 7, 6),
            w=number(4, 3, kernel, kernel),
            b=number(4),
        )
    logits, targets = number(11, 21, scale=3.0), torch.randint(0, 21, (11,))
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    out |= {"cross_entropy.logits": logits, "cross_entropy.dlogits": logits.grad}
    out |= {"cross_entropy.targets": targets, "cross_entropy.loss": loss[None]}
    save(OUT / "layers.safetensors", out)


def tiny_gpt():
    """Loss and all gradients, with an output layer of its own and with that of the embedding."""
    out = {}
    config = Config(layers=2, width=16, heads=2, context=10, vocabulary=40)
    tokens = torch.randint(0, config.vocabulary, (2, config.context + 1))
    out["tokens"] = tokens
    weights = None
    for tied in (False, True):
        config.tied = tied
        model = GPT(config)
        names = [name for name, _ in model.named_parameters()]
        if weights is None:
            weights = {
                name: torch.randn(p.shape) * 0.3 + (1.0 if name.endswith("gain") else 0.0)
                for name, p in model.named_parameters()
            }
            out |= {f"weights.{name}": weight for name, weight in weights.items()}
        model.load_state_dict({name: weights[name] for name in names})
        model = model.double()
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        prefix = "tied" if tied else "untied"
        out[f"{prefix}.loss"] = loss[None]
        out |= {f"{prefix}.{name}": p.grad for name, p in model.named_parameters()}
    save(OUT / "gpt.safetensors", out)


if __name__ == "__main__":
    layers()
    tiny_gpt()
