"""Which part of a local LLM stack is broken."""
