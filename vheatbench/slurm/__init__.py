"""Many machines: a run divided over the tasks of a job array of Slurm, through Slurm's own commands.

Slurm does what a cluster is for: queue, placement, time limits, preemption, lost nodes. The run files are the
checkpoints, so that nothing here has to live while the cluster works.
"""
