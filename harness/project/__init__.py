"""What people keep on disk: stacks, cases, goldens and the documents that they are written in."""
