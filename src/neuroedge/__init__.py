"""NeuroEdge: one self-hosted AI backend."""
