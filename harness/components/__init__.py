"""Real parts, one module each. Its optional package is imported inside a module only."""
