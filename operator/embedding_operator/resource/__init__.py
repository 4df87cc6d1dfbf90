"""What the user writes and reads: the manifest parsed into values, and the status. Pure."""
