"""Of which parts a difference consists, by stage."""
