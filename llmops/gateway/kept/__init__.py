"""What providers keep for a project: responses, files, batches."""
