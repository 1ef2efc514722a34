"""Backends: ways to run a chain program. They never import each other."""
