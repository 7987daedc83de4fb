"""Everything to look at: plots of arrays, the gallery of a trained model, reports and the explorer."""
