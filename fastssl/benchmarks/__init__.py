"""Measuring tools: ratios of interleaved rounds, medians, on one machine in one run."""
