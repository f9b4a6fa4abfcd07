"""What comes after a verdict: a wrong file, the place in the network, known defects. Every runner goes through it."""
