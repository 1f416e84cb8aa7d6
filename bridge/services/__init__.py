"""The recipes, one a file, numbered steps."""
