"""What crosses HTTP: chat completions in OpenAI's format, asked for, recorded and read, with every answer untrusted."""
