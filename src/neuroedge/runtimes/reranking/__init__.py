"""Rerankers: models that read a query and a passage together and say how well the passage answers."""
