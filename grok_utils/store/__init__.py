"""What a run leaves on disk. In: results and state. Out: files that are whole, checked when they are read back."""
