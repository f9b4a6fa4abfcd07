"""llama.cpp from inside: its memory layout, its log, and the laboratory that feeds it by hand."""
