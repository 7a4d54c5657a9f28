"""Curves of several runs: read, joined over seeds, drawn as PNG and as HTML."""
