"""Numeric faults planted in the running engine, and campaigns of them."""
