"""Training the quality networks on graded frames, on one processor or many."""
