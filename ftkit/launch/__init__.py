"""How the processes of a run are started: on this machine, on several, by Slurm."""
