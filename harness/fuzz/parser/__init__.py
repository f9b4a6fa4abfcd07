"""Properties of the parsers of replies, and the fixtures of a conformance suite run against them."""
