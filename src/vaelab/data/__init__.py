"""Images and how they reach the model: one file per source, and what turns a source into batches."""
