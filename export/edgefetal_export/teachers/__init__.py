"""The published networks that edgefetal takes to the clinic."""
