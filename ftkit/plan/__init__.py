"""What a run will take, found before anything is loaded."""
