"""The GPT of src/train/gpt.rs in PyTorch: the oracle's model, and its speed.

    bench/peers/.venv/bin/python bench/peers/gpt.py [threads] [batch] [steps]

prints the seconds per token of a step (forward and backward) as the best and the median of the
steps. On AMD processors MKL runs AVX2 code, which is about half of what AVX-512 reaches there.
"""

import dataclasses
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclasses.dataclass
class Config:
    layers: int = 6
    width: int = 384
    heads: int = 6
    context: int = 256
    vocabulary: int = 256
    tied: bool = False


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x):
        examples, length, width = x.shape
        q, k, v = (
            part.view(examples, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).split(width, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(examples, length, width))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.hidden = nn.Linear(config.width, 4 * config.width)
        self.output = nn.Linear(4 * config.width, config.width)

    def forward(self, x):
        return self.output(F.gelu(self.hidden(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention_norm = Norm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = Norm(config.width)
        self.mlp = Mlp(config)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(config.vocabulary, config.width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.context, config.width) * 0.02)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.width)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.tied = config.tied

    def loss(self, tokens, targets):
        x = self.embedding.tokens[tokens] + self.embedding.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        head = self.embedding.tokens if self.tied else self.head.weight
        logits = F.linear(self.norm(x), head)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    threads, batch, steps = (int(a) for a in (sys.argv[1:] + ["1", "8", "10"][len(sys.argv) - 1 :]))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = Config()
    model = GPT(config)
    tokens = torch.randint(0, config.vocabulary, (batch, config.context + 1))
    times = []
    for step in range(steps + 2):
        start = time.perf_counter()
        model.zero_grad(set_to_none=False)
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        if step >= 2:
            times.append((time.perf_counter() - start) / (batch * config.context))
    times.sort()
    print(
        f"torch {torch.__version__} threads {threads} batch {batch} loss {loss.item():.4f} "
        f"us/token best {times[0] * 1e6:.2f} median {times[len(times) // 2] * 1e6:.2f}"
    )


if __name__ == "__main__":
    main()
