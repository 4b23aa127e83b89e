"""Live transcription."""
