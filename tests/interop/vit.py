"""vit.py VIT_LOGITS FOLDER: makes models of deit_tiny's shape, and of one with other heads and patches, with timm and random
weights, and compares the logits of examples/vit, which VIT_LOGITS prints, with those of timm in float32. The models stay in
FOLDER, each with calibration.safetensors and test.safetensors, for vit_quantize to be tried on.

Exit status 77: torch or timm are missing, nothing was checked.
"""

import json
import subprocess
import sys
from pathlib import Path

SKIP = 77
try:
    import timm
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: no {error.name}")
    sys.exit(SKIP)

TOLERANCE = 1e-4  # both compute in float32, in another order; logits are up to 4
COMPARED = 4      # images
CALIBRATION = 32

MODELS = {
    "deit_tiny": (dict(img_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3), 1000),
    "small": (dict(img_size=24, patch_size=4, embed_dim=40, depth=3, num_heads=5, in_chans=1, mlp_ratio=3), 7),
}


def random_model(arguments, classes):
    """Weights large enough that every part of a block matters."""
    torch.manual_seed(1)
    model = timm.models.vision_transformer.VisionTransformer(num_classes=classes, **arguments).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() == 3:
                parameter.copy_(torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return model


def difference(name, arguments, classes, program, folder):
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    model = random_model(arguments, classes)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"num_classes": classes, "model_args": arguments}))
    for part, count in ("calibration", CALIBRATION), ("test", COMPARED):
        images = torch.randn(count, arguments.get("in_chans", 3), arguments["img_size"], arguments["img_size"])
        labels = torch.randint(0, classes, (count,), dtype=torch.int32)
        save_file({"images": images, "labels": labels}, path / f"{part}.safetensors")
    with torch.no_grad():
        wanted = model(images)
    output = path / "logits.safetensors"
    subprocess.run([program, path, path / "test.safetensors", output], check=True)
    found = load_file(output)["logits"]
    return (found - wanted).abs().max().item(), wanted.abs().max().item()


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    failed = 0
    for name, (arguments, classes) in MODELS.items():
        error, largest = difference(name, arguments, classes, program, folder)
        failed += not error < TOLERANCE
        print(f"{'ok  ' if error < TOLERANCE else 'FAIL'} {name}: logits up to {largest:.2f} differ by {error:.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
