"""Family packs: each family's own tokenizer and published template, out of packages, around tiny random weights."""
