"""A case in, a verdict out: running a stack, its traces, their comparison and the judgement. Knows no real part."""
