"""When two values of a stage are the same, and how they differ: one module a stage."""
