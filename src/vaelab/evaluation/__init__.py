"""The measures of a trained model, one file each."""
