"""Federated learning: combining updates of a model that clients trained on data they keep."""
