"""Visualization: plots of arrays, the gallery of a trained model, the report and the explorer."""
