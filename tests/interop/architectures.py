"""architectures.py LLAMA_LOGITS FOLDER: makes a small random model of every architecture with transformers, and compares
the logits of examples/llama, which LLAMA_LOGITS prints, with those of transformers in float32.

Exit status 77: torch or transformers are missing, nothing was checked.
"""

import subprocess
import sys
from pathlib import Path

SKIP = 77
try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: no {error.name}")
    sys.exit(SKIP)

TOLERANCE = 1e-4  # both compute in float32, in another order; logits are up to 4
TOKENS = 60

SMALL = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
             vocab_size=99, max_position_embeddings=256)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MODELS = {
    "llama": transformers.LlamaConfig(**SMALL, rope_parameters=LLAMA3),
    "mistral": transformers.MistralConfig(**SMALL, head_dim=16, sliding_window=None),
    "qwen2": transformers.Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=16),
    "mistral-sliding": transformers.MistralConfig(**SMALL, head_dim=16, sliding_window=16),
    "qwen2-sliding": transformers.Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=16, max_window_layers=1),
    "gemma3": transformers.Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=16, query_pre_attn_scalar=20,
                                            layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "mixtral": transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
    "mixtral-sliding": transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=1, sliding_window=16),
    "qwen3-moe": transformers.Qwen3MoeConfig(**SMALL, head_dim=16, num_experts=6, num_experts_per_tok=3,
                                             moe_intermediate_size=32, norm_topk_prob=True, mlp_only_layers=[1]),
    "qwen3-moe-plain": transformers.Qwen3MoeConfig(**SMALL, head_dim=16, num_experts=6, num_experts_per_tok=2,
                                                   moe_intermediate_size=32, norm_topk_prob=False),
}


def random_model(config):
    """Weights large enough that every part of a block matters."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model


def difference(name, config, program, folder):
    path = folder / name
    model = random_model(config)
    model.save_pretrained(path)
    tokens = torch.randint(0, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(2))
    save_file({"tokens": tokens.to(torch.int32)}, folder / f"{name}.tokens.safetensors")
    with torch.no_grad():
        wanted = model(tokens[None]).logits[0]
    output = folder / f"{name}.logits.safetensors"
    subprocess.run([program, path, folder / f"{name}.tokens.safetensors", output], check=True)
    found = load_file(output)["logits"]
    return (found - wanted).abs().max().item(), wanted.abs().max().item()


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, config in MODELS.items():
        error, largest = difference(name, config, program, folder)
        failed += not error < TOLERANCE
        print(f"{'ok  ' if error < TOLERANCE else 'FAIL'} {name}: logits up to {largest:.2f} differ by {error:.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
