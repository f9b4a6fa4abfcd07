"""Strategies that make up conversations, tools, requests, texts and token streams: take them from `harness.fuzz`."""
