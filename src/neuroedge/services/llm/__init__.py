"""Language models for callers: which one answers, what it costs, what happens when it fails."""
