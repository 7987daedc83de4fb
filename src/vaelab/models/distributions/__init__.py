"""The probability distributions that torch lacks, and the invertible maps of which some are made."""
