"""Reports of a search for disagreements: the same findings on a terminal, a page, in a comment and for machines."""
