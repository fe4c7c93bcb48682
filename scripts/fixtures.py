"""Makes test/fixtures/*.safetensors and that of the browser example with a real PyTorch (run: python3 scripts/fixtures.py).

block.safetensors   weights, input and output of a pre-norm transformer block (examples/browser), float32
drift.safetensors   the weights and input of the drift experiment (examples/pytorch-gpt.js), float32
golden.safetensors  layer_norm forward and backward on float32 inputs, computed by PyTorch in float64
golden-rms.safetensors  the same of RMS normalization, with and without a residual
gpt2-norms.safetensors  the layer norms of a GPT-2 in bfloat16 (examples/gpt2-checkpoint.js), results from float64
llama.safetensors   a stack of Llama-shaped blocks in bfloat16 (examples/llama.js), results and gradients from float64

The version of PyTorch that made a file stands in its metadata.
"""

import copy
import hashlib
import json
import struct
from pathlib import Path

import torch
from torch.nn import RMSNorm
from torch.nn.functional import layer_norm, rms_norm

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "test" / "fixtures"
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16"}


def bits(tensor):
    """The bytes of a tensor. NumPy has no bfloat16: of that the bytes of integers."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()


def save(name, tensors, metadata, folder=FOLDER):
    """Writes the safetensors format: the header's length in 8 bytes, the header in JSON, the data."""
    header = {"__metadata__": {"torch": torch.__version__, **metadata}}
    data = b""
    for key, tensor in tensors.items():
        # Callers give the widest types first, so that each tensor stays aligned to its own size.
        raw = bits(tensor)
        header[key] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def drift():
    torch.manual_seed(0)
    tensors = {}
    for i in range(30):
        up, down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 16)
        tensors[f"{i}.up.weight"], tensors[f"{i}.up.bias"] = up.weight, up.bias
        tensors[f"{i}.down.weight"], tensors[f"{i}.down.bias"] = down.weight, down.bias
    tensors["x"] = torch.randn(1, 8, 16)
    save("drift.safetensors", tensors, {})


# name: (shape of x, normalized_shape, eps, weight?, bias?, offset, scale)
CASES = {
    "one dimension": ((7, 10), (10,), 1e-5, True, True, 0, 1),
    "one row": ((33,), (33,), 1e-5, True, True, 0, 1),
    "three leading dimensions": ((2, 3, 4, 5), (5,), 1e-5, True, True, 0, 1),
    "two dimensions": ((3, 4, 6), (4, 6), 1e-3, True, True, 0, 1),
    "three dimensions": ((2, 3, 5, 7), (3, 5, 7), 1e-6, True, True, 0, 1),
    "no bias": ((5, 19), (19,), 1e-5, True, False, 0, 1),
    "no affine": ((6, 21), (21,), 1e-5, False, False, 0, 1),
    "tiny eps": ((4, 17), (17,), 1e-12, True, True, 0, 1),
    "small numbers, where eps rules": ((3, 18), (18,), 1e-5, True, True, 0, 1e-3),
    "an offset": ((4, 67), (67,), 1e-5, True, True, 1e4, 1),
    "GPT-2 small": ((3, 768), (768,), 1e-5, True, True, 0.5, 2),
}


def golden():
    torch.manual_seed(1)
    tensors, cases = {}, {}
    for name, (shape, normalized, eps, with_weight, with_bias, offset, scale) in CASES.items():
        x = (torch.randn(shape) * scale + offset).float()
        dy = torch.randn(shape)
        weight = torch.rand(normalized) + 0.5 if with_weight else None
        bias = torch.randn(normalized) if with_bias else None
        inputs = {"x": x, "dy": dy, "weight": weight, "bias": bias}
        inputs = {key: value for key, value in inputs.items() if value is not None}
        exact = {key: value.double().requires_grad_(key != "dy") for key, value in inputs.items()}
        y = layer_norm(exact["x"], normalized, exact.get("weight"), exact.get("bias"), eps)
        y.backward(exact["dy"])
        results = {"y": y, "dx": exact["x"].grad}
        results.update({"d" + key: exact[key].grad for key in ("weight", "bias") if key in exact})
        tensors.update({f"{name}/{key}": value for key, value in {**results, **inputs}.items()})
        cases[name] = {"normalizedShape": normalized, "eps": eps}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].dtype != torch.float64))
    save("golden.safetensors", tensors, {"cases": json.dumps(cases)})


# name: (shape of x, normalized_shape, eps, weight?, residual?, offset, scale)
RMS_CASES = {
    "one dimension": ((7, 10), (10,), 1e-6, True, False, 0, 1),
    "one row, a residual": ((33,), (33,), 1e-6, True, True, 0, 1),
    "two dimensions, a residual": ((3, 4, 6), (4, 6), 1e-3, True, True, 0, 1),
    "three dimensions": ((2, 3, 5, 7), (3, 5, 7), 2.0**-23, True, False, 0, 1),
    "no affine, a residual": ((6, 21), (21,), 1e-5, False, True, 0, 1),
    "small numbers, where eps rules": ((3, 18), (18,), 1e-5, True, False, 0, 1e-3),
    "an offset, a residual": ((4, 67), (67,), 1e-5, True, True, 1e4, 1),
    "query and key norms": ((2, 5, 64), (64,), 1e-6, True, False, 0, 2),
    "Llama": ((3, 1024), (1024,), 1e-5, True, True, 0.5, 2),
}


def golden_rms():
    torch.manual_seed(3)
    tensors, cases = {}, {}
    for name, (shape, normalized, eps, with_weight, with_residual, offset, scale) in RMS_CASES.items():
        inputs = {"x": (torch.randn(shape) * scale + offset).float(), "dy": torch.randn(shape)}
        if with_weight:
            inputs["weight"] = torch.rand(normalized) + 0.5
        if with_residual:
            inputs["residual"] = torch.randn(shape) * scale
            # The gradient that the sum gets from elsewhere.
            inputs["add"] = torch.randn(shape)
        # The addition is one of float32, which the norm then takes as it is.
        total = inputs["x"] + inputs["residual"] if with_residual else inputs["x"]
        exact = total.double().requires_grad_()
        weight = inputs["weight"].double().requires_grad_() if with_weight else None
        y = rms_norm(exact, normalized, weight, eps)
        outputs = [y, exact.clone()] if with_residual else [y]
        grads = [inputs[key].double() for key in ("dy", "add")[: len(outputs)]]
        torch.autograd.backward(outputs, grads)
        results = {"y": y, "dx": exact.grad}
        if with_weight:
            results["dweight"] = weight.grad
        if with_residual:
            inputs["sum"] = total
        tensors.update({f"{name}/{key}": value for key, value in {**results, **inputs}.items()})
        cases[name] = {"normalizedShape": normalized, "eps": eps}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].dtype != torch.float64))
    save("golden-rms.safetensors", tensors, {"cases": json.dumps(cases)})


def block():
    torch.manual_seed(2)
    heads, dim, tokens = 3, 48, 11
    layer = torch.nn.TransformerEncoderLayer(dim, heads, 4 * dim, norm_first=True, batch_first=True).eval()
    with torch.no_grad():
        for norm in (layer.norm1, layer.norm2):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
        x = torch.randn(1, tokens, dim) * 2 + 1
        y = layer(x)
    tensors = {**layer.state_dict(), "x": x[0], "y": y[0]}
    save("block.safetensors", tensors, {"heads": str(heads)}, ROOT / "examples" / "browser")


def gpt2_norms():
    torch.manual_seed(4)
    names = [f"h.{layer}.{norm}" for layer in range(12) for norm in ("ln_1", "ln_2")] + ["ln_f"]
    x = torch.randn(768) * 2 + 0.5
    results, weights = {"x": x}, {}
    for name in names:
        weight = weights[f"{name}.weight"] = (torch.rand(768) + 0.5).bfloat16()
        bias = weights[f"{name}.bias"] = (torch.randn(768) / 4).bfloat16()
        y = layer_norm(x.double(), (768,), weight.double(), bias.double(), 1e-5)
        results[f"y.{name}"] = y.float()
    digest = hashlib.sha256(b"".join(bits(value.float()) for value in weights.values())).hexdigest()
    # What else stands in a checkpoint, in small.
    weights["h.0.attn.c_attn.bias"] = torch.randn(3 * 768).bfloat16()
    weights["wpe.weight"] = torch.randn(2, 768).bfloat16()
    save("gpt2-norms.safetensors", {**results, **weights}, {"float32": digest})


def random_norm(cols):
    norm = RMSNorm(cols, eps=1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


class Attention(torch.nn.Module):
    """Causal attention of several queries to one key and value, both with norms over the head's dimension."""

    def __init__(self, dim, heads, head_dim):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.q_proj = torch.nn.Linear(dim, heads * head_dim, bias=False)
        self.k_proj = torch.nn.Linear(dim, head_dim, bias=False)
        self.v_proj = torch.nn.Linear(dim, head_dim, bias=False)
        self.o_proj = torch.nn.Linear(heads * head_dim, dim, bias=False)
        self.q_norm, self.k_norm = random_norm(head_dim), random_norm(head_dim)

    def forward(self, x):
        tokens = len(x)
        q = self.q_norm(self.q_proj(x).view(tokens, self.heads, self.head_dim)).transpose(0, 1)
        k = self.k_norm(self.k_proj(x))
        scores = q @ k.T / self.head_dim**0.5
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        return self.o_proj((weights @ self.v_proj(x)).transpose(0, 1).reshape(tokens, -1))


class GatedMLP(torch.nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_proj = torch.nn.Linear(dim, hidden, bias=False)
        self.up_proj = torch.nn.Linear(dim, hidden, bias=False)
        self.down_proj = torch.nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(torch.nn.Module):
    def __init__(self, dim, heads, head_dim, hidden):
        super().__init__()
        self.input_layernorm, self.self_attn = random_norm(dim), Attention(dim, heads, head_dim)
        self.post_attention_layernorm, self.mlp = random_norm(dim), GatedMLP(dim, hidden)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


def llama():
    torch.manual_seed(5)
    sizes = {"dim": 48, "heads": 2, "head_dim": 64, "hidden": 80}
    blocks, tokens = 4, 7
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(LlamaBlock(*sizes.values()) for _ in range(blocks))
    model.norm = random_norm(sizes["dim"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    inputs = {"x": torch.randn(tokens, sizes["dim"]), "dy": torch.randn(tokens, sizes["dim"])}

    def run(dtype):
        """The results and gradients in a type, all as float64."""
        own = copy.deepcopy(model).to(dtype)
        x = inputs["x"].to(dtype).requires_grad_()
        y = x
        for layer in own.layers:
            y = layer(y)
        y = own.norm(y)
        y.backward(inputs["dy"].to(dtype))
        gradients = {f"grad.{name}": value.grad for name, value in own.named_parameters()}
        return {name: value.detach().double() for name, value in {"y": y, "grad.x": x.grad, **gradients}.items()}

    exact, single = run(torch.float64), run(torch.float32)
    # How far PyTorch itself is off in float32, in units of 2^-23 of the largest element.
    off = {name: float((single[name] - exact[name]).abs().max() / exact[name].abs().max()) * 2**23 for name in exact}
    weights = {name: value.bfloat16() for name, value in model.named_parameters()}
    results = {name: value.float() for name, value in exact.items()}
    metadata = {**sizes, "blocks": blocks, "off": {name: round(units, 2) for name, units in off.items()}}
    metadata = {name: json.dumps(value) for name, value in metadata.items()}
    save("llama.safetensors", {**inputs, **results, **weights}, metadata)


if __name__ == "__main__":
    block()
    drift()
    golden()
    golden_rms()
    gpt2_norms()
    llama()
