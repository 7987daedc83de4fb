"""What watches a training: pictures and progress."""
