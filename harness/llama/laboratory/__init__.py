"""The engine laboratory: llama.cpp as people deploy it, fed by hand, watched at every node, and hurt on purpose."""
