"""One module for each question that a view answers."""
