"""Where goldens come from: template renderer, tokenizer, NumPy oracle, reply specification."""
