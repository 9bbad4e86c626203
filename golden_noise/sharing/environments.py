"""Who starts the processes of a job, in Lightning's terms: SLURM, or Lightning itself."""

import os
import warnings

from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from golden_noise.sharing.processes import slurm_tasks


def environments() -> list[ClusterEnvironment]:
    """The plugin for Lightning where its own choice is wrong: in jobs of SLURM. Else none, and Lightning looks itself.

    In a single task with several GPUs, Lightning would take the other processes for SLURM's, and train on one GPU.
    Nor may it requeue the job: its checkpoint of that moment is not `last.ckpt`, may fall within a step, and would be
    resumed by whatever starts next in the same working directory.
    """
    # On any machine that has `srun` Lightning advises to use it, also where there is nothing to start.
    warnings.filterwarnings("ignore", message=r"The `srun` command is available on your system but is not used")
    if slurm_tasks():
        return [SLURMEnvironment(auto_requeue=False)]
    if "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return [LightningEnvironment()]
    return []
