"""A translation model small enough to be made in a test: a transformer that says a dictionary, word for word.

Its decoder attends from each position to the same position of the source and gives the word the dictionary has there,
so its answers are known although it is a real model of the format: vocabulary, weights, encoder, decoder, beam search.
Token embeddings and positions lie in dimensions of their own; what is not in the dictionary becomes <unk>.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

_POSITIONS: Final = 64
_SHARP: Final = 60.0


def write_weights(folder: Path, words: Mapping[str, str], *, tags: Sequence[str] = (), own_end: bool = False) -> None:
    """model.bin and vocabularies in `folder`: pieces of `words` become their values, `tags` themselves.

    `own_end`: texts come with their </s>, as NLLB's do.
    """
    from ctranslate2.specs import TransformerSpec

    from_pieces = list(dict.fromkeys(["<unk>", "<s>", "</s>", *words, *tags]))
    to_pieces = list(dict.fromkeys(["<unk>", "<s>", "</s>", *words.values(), *tags]))
    mapping = {**{tag: tag for tag in tags}, **words, "</s>": "</s>"}
    spec = TransformerSpec.from_config(1, 1, with_relative_position=False, pre_norm=False, no_final_norm=True)
    _fill(spec, from_pieces, to_pieces, mapping)
    spec.register_source_vocabulary(from_pieces)
    spec.register_target_vocabulary(to_pieces)
    spec.config.add_source_eos = not own_end
    spec.config.add_source_bos = False
    spec.validate()
    spec.optimize(quantization=None)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def write_pieces(path: Path, words: Sequence[str]) -> None:
    """A SentencePiece model that cuts a text at its spaces."""
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words)] * 3),
        model_writer=made,
        model_type="word",
        vocab_size=len(set(words)) + 3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(made.getvalue())


def write_argos(folder: Path, words: Mapping[str, str], *, source: str, target: str) -> None:
    """An Argos package as a folder."""
    pieces = {f"▁{a}": f"▁{b}" for a, b in words.items()}
    write_weights(folder / "model", pieces)
    write_pieces(folder / "sentencepiece.model", list(words))
    about = {"from_code": source, "to_code": target, "package_version": "1.0"}
    (folder / "metadata.json").write_text(json.dumps(about))


def _fill(spec: Any, from_pieces: Sequence[str], to_pieces: Sequence[str], mapping: Mapping[str, str]) -> None:
    n, m = len(from_pieces), len(to_pieces)
    dim = n + m + _POSITIONS
    positions = np.zeros((_POSITIONS, dim), np.float32)
    positions[:, n + m :] = np.eye(_POSITIONS)
    source = np.zeros((n, dim), np.float32)
    source[:, :n] = np.eye(n)
    target = np.zeros((m, dim), np.float32)
    for stack, embedding in ((spec.encoder, source), (spec.decoder, target)):
        given = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
        given.weight = embedding
        stack.scale_embeddings = False
        stack.position_encodings.encodings = positions
    for layer in (*spec.encoder.layer, *spec.decoder.layer):
        _silent(layer.self_attention, dim)
        _norm(layer.self_attention.layer_norm, dim)
        _zero(layer.ffn.linear_0, dim, dim)
        _zero(layer.ffn.linear_1, dim, dim)
        _norm(layer.ffn.layer_norm, dim)
    attention = spec.decoder.layer[0].attention
    to_position = np.zeros((dim, dim), np.float32)
    to_position[n + m :, n + m :] = np.eye(_POSITIONS) * _SHARP
    to_word = np.zeros((dim, dim), np.float32)
    for i, piece in enumerate(from_pieces):
        word = mapping.get(piece, "<unk>")
        to_word[n + to_pieces.index(word), i] = 1.0
    _linear(attention.linear[0], to_position)
    _linear(attention.linear[1], np.concatenate([to_position, to_word]))
    _linear(attention.linear[2], np.eye(dim, dtype=np.float32) * _SHARP)
    _norm(attention.layer_norm, dim)
    out = np.zeros((m, dim), np.float32)
    out[:, n : n + m] = np.eye(m)
    _linear(spec.decoder.projection, out * _SHARP)


def _silent(attention: Any, dim: int) -> None:
    _zero(attention.linear[0], 3 * dim, dim)
    _zero(attention.linear[1], dim, dim)


def _zero(linear: Any, rows: int, columns: int) -> None:
    _linear(linear, np.zeros((rows, columns), np.float32))


def _linear(linear: Any, weight: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    linear.weight = weight.astype(np.float32)
    linear.bias = np.zeros(weight.shape[0], np.float32)


def _norm(norm: Any, dim: int) -> None:
    norm.gamma = np.ones(dim, np.float32)
    norm.beta = np.zeros(dim, np.float32)
