"""Training the student, alone or by several teachers."""
