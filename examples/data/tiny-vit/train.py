#!/usr/bin/env python3
"""train.py [FOLDER]: trains a small vision transformer on scikit-learn's digits, 1797 images of 8 x 8 pixels, and writes it
to FOLDER, this one by default, as timm would: model.safetensors and config.json, with the images beside them, as the model
sees them, and its logits of the test images.

    pip install torch scikit-learn safetensors
    examples/data/tiny-vit/train.py

Seed 0. A random 1198 of the images train the model, 599 are held out (test). Takes some minutes on a core and prints the
accuracy on both.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

SEED = 0
HIDDEN, BLOCKS, HEADS, RATIO, PATCH, SIZE, CLASSES = 48, 6, 3, 4, 2, 8, 10
EPOCHS, BATCH, RATE, TEST = 150, 64, 2e-3, 599


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.proj = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x):
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, HIDDEN))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(HIDDEN, RATIO * HIDDEN)
        self.fc2 = nn.Linear(RATIO * HIDDEN, HIDDEN)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(HIDDEN, eps=1e-6)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(HIDDEN, eps=1e-6)
        self.mlp = Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, HIDDEN, PATCH, PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Names as in timm."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, HIDDEN) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (SIZE // PATCH) ** 2, HIDDEN) * 0.02)
        self.patch_embed = PatchEmbed()
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


def shifted(images):
    """Each image moved by up to a pixel, and dimmed."""
    moved = torch.zeros_like(images)
    padded = F.pad(images, (1, 1, 1, 1))
    for i, (dy, dx) in enumerate(torch.randint(0, 3, (len(images), 2)).tolist()):
        moved[i] = padded[i, :, dy : dy + SIZE, dx : dx + SIZE]
    return moved * (0.8 + 0.4 * torch.rand(len(images), 1, 1, 1))


def measure(model, images, labels):
    with torch.no_grad():
        logits = model.eval()(images)
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)  # the same sums on every machine
    torch.manual_seed(SEED)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # pixels are 0 to 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    test, train = order[:TEST], order[TEST:]
    model = VisionTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        model.train()
        shuffled = train[torch.randperm(len(train))]
        for batch in shuffled[: len(train) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(shifted(images[batch])), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model = model.to(torch.bfloat16).float()  # as it is stored
    for name, part in ("train", train), ("test", test):
        accuracy, loss = measure(model, images[part], labels[part])
        print(f"{name}: {len(part)} images, top-1 {100 * accuracy:.2f} %, cross-entropy {loss:.4f}")

    save_file({name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()},
              folder / "model.safetensors")
    config = {
        "architecture": "vit",
        "num_classes": CLASSES,
        "num_features": HIDDEN,
        "model_args": {"img_size": SIZE, "patch_size": PATCH, "in_chans": 1, "embed_dim": HIDDEN, "depth": BLOCKS,
                       "num_heads": HEADS, "mlp_ratio": RATIO},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with torch.no_grad():
        logits = model(images[test])
    for name, part, more in ("calibration", train, {}), ("test", test, {"logits": logits.contiguous()}):
        save_file({"images": images[part].to(torch.bfloat16).contiguous(), "labels": labels[part].to(torch.int32)} | more,
                  folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
