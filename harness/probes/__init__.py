"""Model files that make black boxes transparent: tiny networks around a real model's vocabulary and template.

Loaded into any server of the llama.cpp family, a *replay* model makes it generate exactly the ids that one wants, so
that what it makes of them is seen; a *fingerprint* model gives first-token numbers that tell which ids it was fed.
"""
