"""Child processes: started, asked, limited and ended. Knows that one died, not what that means."""
