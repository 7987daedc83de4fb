"""Probability distributions that torch lacks, and the invertible maps from which some of them are built."""
