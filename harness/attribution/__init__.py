"""The harness measured: labelled defects are planted in real stacks, and what the check says of each is counted."""
