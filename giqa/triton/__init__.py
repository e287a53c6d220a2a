"""Serving with Triton: client, server, model repository."""
