"""Tests of language models for callers."""
