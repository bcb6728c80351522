"""Small networks for small devices."""
