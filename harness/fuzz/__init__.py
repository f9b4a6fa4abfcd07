"""Properties tried on inputs that are made up. Hypothesis is imported here and nowhere else."""
