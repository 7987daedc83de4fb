"""The measures of a trained model, one module each."""
