"""What runs in the clinic: sources, preprocessing, inference, selection, biometry and the exam record. Never torch."""
