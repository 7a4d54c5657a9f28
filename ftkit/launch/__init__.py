"""How the ranks of a run are started: on this machine, on several, by Slurm; without torch."""
