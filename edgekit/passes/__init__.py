"""Transformations of graphs, by name."""
