"""Starting ranks: on this machine, on others, under Slurm.  Nothing here imports torch."""
