"""One command per file; everything heavy is imported inside the command."""
