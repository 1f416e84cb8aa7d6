"""What is stored and where, in a database."""
