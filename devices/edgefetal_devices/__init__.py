"""The boards that edgefetal runs on, and the error tree that every layer shares."""
