"""What a run leaves behind, how it is read, and how one is started."""
