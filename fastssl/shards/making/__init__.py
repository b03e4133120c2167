"""From a heap of image files to a dataset: sources, encoding, shards, the manifest last."""
