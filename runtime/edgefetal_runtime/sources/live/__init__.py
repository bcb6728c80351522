"""Live sources: capture cards, network cameras and files played as if live, each behind a child that may be killed."""
