"""Datasets made of datasets, and the check of one against all that it says of itself."""
