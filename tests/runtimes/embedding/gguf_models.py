"""GGUF files for tests: a tiny Qwen3 with random weights and its computation in numpy, and MiniLM's real weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer

Array = NDArray[Any]
END = 256
"""Id of <|endoftext|>, which ends every text; below are the bytes."""


@dataclass(frozen=True, kw_only=True)
class TinyQwen3:
    """Sizes of the model, and its weights by their names in the file."""

    dim: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 48
    layers: int = 2
    eps: float = 1e-6
    rope_base: float = 1e6

    def weights(self) -> dict[str, Array]:
        """Random weights; norms around one."""
        rng = np.random.default_rng(3)

        def matrix(rows: int, columns: int) -> Array:
            return np.asarray(rng.normal(size=(rows, columns)) / np.sqrt(columns), np.float32)

        def norm(size: int) -> Array:
            return np.asarray(1 + 0.1 * rng.normal(size=size), np.float32)

        made = {"token_embd": matrix(END + 1, self.dim) * 4, "output_norm": norm(self.dim)}
        for i in range(self.layers):
            made |= {
                f"blk.{i}.attn_norm": norm(self.dim),
                f"blk.{i}.attn_q": matrix(self.heads * self.head_dim, self.dim),
                f"blk.{i}.attn_k": matrix(self.kv_heads * self.head_dim, self.dim),
                f"blk.{i}.attn_v": matrix(self.kv_heads * self.head_dim, self.dim),
                f"blk.{i}.attn_output": matrix(self.dim, self.heads * self.head_dim),
                f"blk.{i}.attn_q_norm": norm(self.head_dim),
                f"blk.{i}.attn_k_norm": norm(self.head_dim),
                f"blk.{i}.ffn_norm": norm(self.dim),
                f"blk.{i}.ffn_gate": matrix(self.ffn, self.dim),
                f"blk.{i}.ffn_up": matrix(self.ffn, self.dim),
                f"blk.{i}.ffn_down": matrix(self.dim, self.ffn),
            }
        return made

    def write(self, path: Path) -> None:
        """The GGUF file, with a tokenizer of bytes that ends every text with END."""
        writer = gguf.GGUFWriter(path, "qwen3")
        writer.add_context_length(512)
        writer.add_embedding_length(self.dim)
        writer.add_feed_forward_length(self.ffn)
        writer.add_block_count(self.layers)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(self.eps)
        writer.add_rope_freq_base(self.rope_base)
        writer.add_pooling_type(gguf.PoolingType.LAST)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([*_byte_names(), "<|endoftext|>"])
        writer.add_token_types([gguf.TokenType.NORMAL] * END + [gguf.TokenType.CONTROL])
        writer.add_token_merges(["Ā Ā"])
        writer.add_eos_token_id(END)
        writer.add_add_eos_token(True)
        writer.add_add_bos_token(False)
        for name, value in self.weights().items():
            writer.add_tensor(f"{name}.weight", value)
        _finish(writer)

    def states(self, ids: list[int]) -> Array:
        """Token states [n, dim] after the last norm (Yang et al. 2025, Qwen3)."""
        w = self.weights()
        x = w["token_embd"][ids]
        positions = np.arange(len(ids))
        causal = np.where(positions[:, None] >= positions[None, :], 0.0, -np.inf)
        for i in range(self.layers):
            layer = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"blk.{i}.")}
            h = self._norm(x, layer["attn_norm"])
            q, k, v = (
                (h @ layer[f"attn_{n}"].T).reshape(len(ids), -1, self.head_dim).transpose(1, 0, 2) for n in "qkv"
            )
            q = self._rotate(self._norm(q, layer["attn_q_norm"]), positions)
            k = self._rotate(self._norm(k, layer["attn_k_norm"]), positions)
            k, v = (np.repeat(a, self.heads // self.kv_heads, axis=0) for a in (k, v))
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(self.head_dim) + causal
            share = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (share / share.sum(axis=-1, keepdims=True)) @ v
            x = x + mixed.transpose(1, 0, 2).reshape(len(ids), -1) @ layer["attn_output"].T
            h = self._norm(x, layer["ffn_norm"])
            gate = h @ layer["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
        return self._norm(x, w["output_norm"])

    def _norm(self, x: Array, weight: Array) -> Array:
        return np.asarray(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps) * weight)

    def _rotate(self, x: Array, positions: Array) -> Array:
        half = self.head_dim // 2
        angles = positions[:, None] * self.rope_base ** (-np.arange(half) / half)
        first, second = x[..., :half], x[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def write_minilm(path: Path, *, onnx_folder: Path) -> None:
    """The default encoder's weights, widened to float32, as the GGUF file llama.cpp's converter would make."""
    weights = _minilm_weights(onnx_folder / "model.onnx")
    tokenizer = Tokenizer.from_file(str(onnx_folder / "tokenizer.json"))
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(512)
    writer.add_embedding_length(384)
    writer.add_feed_forward_length(1536)
    writer.add_block_count(6)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    words = [str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    special = [word.startswith("[") and word.endswith("]") and len(word) > 2 for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(
        [w if s else w[2:] if w.startswith("##") else f"▁{w}" for w, s in zip(words, special, strict=True)]
    )
    writer.add_token_types([gguf.TokenType.CONTROL if s else gguf.TokenType.NORMAL for s in special])
    for add, word in (("bos", "[CLS]"), ("eos", "[SEP]"), ("sep", "[SEP]"), ("unk", "[UNK]"), ("pad", "[PAD]")):
        getattr(writer, f"add_{add}_token_id")(tokenizer.token_to_id(word))
    for name, value in weights.items():
        writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
    _finish(writer)


_BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "position_embeddings.weight": "position_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}


def _minilm_weights(path: Path) -> dict[str, Array]:
    """GGUF's names to float32 weights; matrices lost their names in the export and are known by the bias added next."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    widened = {n[:-2]: v.astype(np.float32) * stored[f"{n[:-2]}_scale"] for n, v in stored.items() if n.endswith("_q")}
    named = {n.removeprefix("inner."): v for n, v in {**stored, **widened}.items() if n.startswith("inner.")}
    read_by = {node.input[0]: node for node in graph.node if node.op_type == "Add"}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in widened:
            bias = read_by[node.output[0]].input[1].removeprefix("inner.")
            named[bias.replace(".bias", ".weight")] = widened[node.input[1]].T
    found = {gguf_name: named[f"embeddings.{name}"] for name, gguf_name in _EMBEDDINGS.items()}
    for i in range(6):
        for name, gguf_name in _BLOCK.items():
            for part in ("weight", "bias"):
                found[f"blk.{i}.{gguf_name}.{part}"] = named[f"encoder.layer.{i}.{name}.{part}"]
    return found


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _byte_names() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [names[b] for b in range(256)]
