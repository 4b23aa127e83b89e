"""The peer of the embedding engine: sentence-transformers in float32 on torch, in a process and environment of its own.

Run by `benchmarks.embedding` with the Python of that environment: PYTHON peer_sentence_transformers.py MODEL THREADS.
Reads lines of JSON {"texts", "batch_size"}, answers each with {"seconds", "vectors"}. MODEL is all-MiniLM-L6-v2 as a
folder or by its name on Hugging Face.
"""

import json
import sys
import time


def main(model: str, threads: int) -> None:
    """Answer until the input ends."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    encoder = SentenceTransformer(model, device="cpu")
    encoder.encode(["The first call prepares things."] * 8)
    print(json.dumps({"ready": [torch.__version__, encoder.max_seq_length]}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        vectors = encoder.encode(asked["texts"], batch_size=asked["batch_size"], show_progress_bar=False)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "vectors": vectors.tolist()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
