"""Everything fitted or judged on data after training: labelled datasets, evaluation, INT8 ranges, phantoms."""
