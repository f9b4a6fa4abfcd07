"""Model files into values: GGUF, vocabularies, family packs, and the caches of what was read. Runs nothing."""
