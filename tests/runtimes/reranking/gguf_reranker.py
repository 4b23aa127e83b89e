"""A tiny BERT reranker with random weights as a GGUF file."""

from pathlib import Path

import gguf
import numpy as np

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁w{i}" for i in range(20)))
DIM, HEADS, FFN = 32, 2, 48


def write_reranker(path: Path, *, head: bool = True) -> None:
    """One layer, and with `head` the two dense layers of a classifier with one label."""
    rng = np.random.default_rng(4)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(64)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(list(WORDS))
    control = [gguf.TokenType.CONTROL] * 4
    writer.add_token_types([*control, *[gguf.TokenType.NORMAL] * (len(WORDS) - 4)])
    for add, token in (("pad", 0), ("unk", 1), ("bos", 2), ("eos", 3), ("sep", 3)):
        getattr(writer, f"add_{add}_token_id")(token)
    for name, shape in (_shapes() | (_head() if head else {})).items():
        value = rng.normal(size=shape) if len(shape) == 2 else np.zeros(shape)
        writer.add_tensor(name, np.asarray(value + (name.endswith("norm.weight")), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(WORDS), DIM),
        "position_embd.weight": (64, DIM),
        "token_types.weight": (2, DIM),
        "token_embd_norm.weight": (DIM,),
        "token_embd_norm.bias": (DIM,),
    }
    for name, out, in_ in (("ffn_up", FFN, DIM), ("ffn_down", DIM, FFN), *((f"attn_{n}", DIM, DIM) for n in "qkv")):
        shapes |= {f"blk.0.{name}.weight": (out, in_), f"blk.0.{name}.bias": (out,)}
    shapes |= {"blk.0.attn_output.weight": (DIM, DIM), "blk.0.attn_output.bias": (DIM,)}
    for name in ("attn_output_norm", "layer_output_norm"):
        shapes |= {f"blk.0.{name}.weight": (DIM,), f"blk.0.{name}.bias": (DIM,)}
    return shapes


def _head() -> dict[str, tuple[int, ...]]:
    return {
        "cls.weight": (DIM, DIM),
        "cls.bias": (DIM,),
        "cls.output.weight": (1, DIM),
        "cls.output.bias": (1,),
    }
