"""Chat templates on made-up conversations: what must hold of any, and where the engines that render them disagree."""
