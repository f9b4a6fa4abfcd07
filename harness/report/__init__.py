"""Consumers of verdicts: console and JSON."""
